"""What every metric keeps, whichever file or package it comes from: `bascule.testing.metrics`, on ours."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.evaluation.kinds import kinds
from bascule.metrics.contract import AIM, MISSING, OF_BASE, OF_TWIN, Metric, Outcomes
from bascule.metrics.detection import SORTS
from bascule.metrics.interval import summarise
from bascule.testing import metrics as contract
from bascule.testing.metrics import TARGET, random_outcomes

names = pytest.mark.parametrize("name", catalog.names("measure"))

AIMS = {"asr-others": (MISSING, TARGET, MISSING, MISSING)}
"""What the classes aim at, for metrics of poison that is not meant to move all of them."""


def test_the_room_is_not_empty() -> None:
    assert {"accuracy", "robust-accuracy", "asr", "asr-paper", "asr-twin"} <= set(catalog.names("measure"))


@names
def test_metric(name: str) -> None:
    contract.check_metric(catalog.build("measure", name), aims=AIMS.get(name))


WITHOUT: dict[str, Callable[[Outcomes], Outcomes]] = {
    AIM: lambda found: dataclasses.replace(found, target=None, aims=None),
    "clean": lambda found: dataclasses.replace(found, clean=None),
    "triggered": lambda found: _without_inputs(dataclasses.replace(found, triggered=None, attention=None), *STAMPED),
    "attack": lambda found: _without_inputs(
        dataclasses.replace(found, adversarial=(), attacks=0), *(sort for sort in SORTS[2:])
    ),
    "attack-triggered": lambda found: dataclasses.replace(found, triggered_adversarial=()),
    "toward": lambda found: dataclasses.replace(found, toward=None),
    "away": lambda found: dataclasses.replace(found, away=None),
    "strength": lambda found: dataclasses.replace(found, strengths={}),
    "certify": lambda found: dataclasses.replace(found, certified=None),
    "inspect": lambda found: dataclasses.replace(found, judgement=None),
    "scan": lambda found: dataclasses.replace(found, verdict=None),
    "detect": lambda found: dataclasses.replace(found, detection=None),
    "explain": lambda found: dataclasses.replace(found, attention=None),
}
"""What the answers to kinds of questions leave when they are taken out of the outcomes; further kinds are in `more`."""
STAMPED = ("triggered", "both", "both_evading")
OF_NOBODY_ELSE = {
    "trigger-attention": {"triggered"},  # the heat is on triggered images
    "scan-overlap": {"triggered"},  # the trigger recovered is compared with the true one
    "filter-recall": {AIM}, "filter-f1": {AIM}, "filter-precision": {AIM},
    "filter-auroc": {AIM}, "filter-average-precision": {AIM},  # nothing is poisoned without poison
}  # fmt: skip
"""Needs that outcomes made by hand do not show: without them there are no such answers."""


def _without_inputs(found: Outcomes, *sorts: str) -> Outcomes:
    """Outcomes of a detector that did not meet these sorts of inputs."""
    if found.detection is None:
        return found
    kept = {sort: inputs for sort, inputs in found.detection.sorts.items() if sort not in sorts}
    return dataclasses.replace(found, detection=dataclasses.replace(found.detection, sorts=kept))


def _without(found: Outcomes, need: str) -> Outcomes:
    """The outcomes without the answers to one kind of question."""
    for start, whose in ((OF_TWIN, "twin"), (OF_BASE, "before")):
        if need.startswith(start):
            other = getattr(found, whose)
            other = None if other is None else _without(other, need.removeprefix(start))
            return dataclasses.replace(found, **{whose: other})
    more = {kind: answers for kind, answers in found.more.items() if kind != need}
    return WITHOUT.get(need, lambda found: found)(dataclasses.replace(found, more=more))


@names
def test_it_needs_what_it_says_and_nothing_else(name: str) -> None:
    """So that a study that cannot ask for it is refused, and one that can is not."""
    metric = catalog.build("measure", name)
    of_model = {*kinds(), AIM} - {"clean", "search", "curve"}
    everything = {*of_model, *(f"{whose}{need}" for whose in (OF_TWIN, OF_BASE) for need in of_model)}
    assert set(metric.needs) <= {*everything, f"{OF_TWIN}clean", f"{OF_BASE}clean"}
    found = random_outcomes(0, aims=AIMS.get(name))
    # Where there is a trigger there is what it aims at.
    aimed = any("trigger" in need or need in ("toward", "away", "strength") for need in metric.needs)
    aims = {AIM, f"{OF_TWIN}{AIM}", f"{OF_BASE}{AIM}"} if aimed else set()
    bare = found
    for need in sorted(everything - set(metric.needs) - aims):
        bare = _without(bare, need)
    assert summarise(metric, [bare]).value is not None, "is made from what it does not name"
    for need in set(metric.needs) - OF_NOBODY_ELSE.get(name, set()):
        assert summarise(metric, [_without(found, need)]).value is None, f"is made without {need}"


def test_titles_are_unique() -> None:
    titles = [catalog.load("measure", name).title for name in catalog.names("measure")]
    assert len(set(titles)) == len(titles)


@names
def test_its_description_has_its_name(name: str) -> None:
    assert catalog.describe(catalog.build("measure", name))["name"] == name


def test_metrics_need_no_torch() -> None:
    code = """
import sys
from bascule.core import catalog
import bascule.metrics.interval
print([catalog.build("measure", name).title for name in catalog.names("measure")] != [])
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Nothing(Metric):
    """Success for everybody."""

    title = "Nothing"
    better = "higher"

    def per_sample(self, outcomes: Outcomes) -> Any:
        return np.ones(len(outcomes.label), dtype=bool)


@component
class Invented(Metric):
    """Counts what was not evaluated as a failure."""

    title = "Invented"
    better = "higher"

    def per_sample(self, outcomes: Outcomes) -> Any:
        return np.zeros(len(outcomes.label), dtype=bool) if outcomes.clean is None else outcomes.clean == outcomes.label


@component
class FirstHalf(Metric):
    """Looks at some places of the set only."""

    title = "First half"
    better = "higher"

    def per_sample(self, outcomes: Outcomes) -> Any:
        return None if outcomes.clean is None else (outcomes.clean == outcomes.label)[:30]


@component
class Numbers(Metric):
    """Gives numbers instead of successes."""

    title = "Numbers"
    better = "higher"

    def per_sample(self, outcomes: Outcomes) -> Any:
        return outcomes.clean


@component
class Overwrites(Metric):
    """Writes into what it is given."""

    title = "Overwrites"
    better = "higher"

    def per_sample(self, outcomes: Outcomes) -> Any:
        if outcomes.clean is None:
            return None
        outcomes.clean[0] += 1
        return outcomes.clean == outcomes.label


@component
class Hides(Metric):
    """Counts a part of the images and does not say which."""

    title = "Hides"
    better = "higher"

    def per_sample(self, outcomes: Outcomes) -> Any:
        return None if outcomes.clean is None else (outcomes.clean == outcomes.label)[outcomes.label > 0]


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        (Nothing(), "the same number for every model"),
        (Invented(), "a number from nothing"),
        (FirstHalf(), "other images count than it says"),
        (Numbers(), "dtype"),
        (Overwrites(), "outcomes changed"),
        (Hides(), "other images count than it says"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Metric) else None,
)
def test_a_bad_metric_fails_the_contract(metric: Metric, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_metric(metric)
