"""What every metric keeps, whichever file or package it comes from."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.evaluation.kinds import kinds
from bascule.metrics.contract import AIM, MISSING, OF_BASE, OF_TWIN, Judgement, Metric, Number, Outcomes, Verdict
from bascule.metrics.detection import SORTS, Detection, Inputs
from bascule.metrics.interval import summarise

names = pytest.mark.parametrize("name", catalog.names("measure"))

CLASSES, TARGET = 4, 3
RETUNED = (5.0, 0.0)
"""How many poisoned images a copy was trained further on, one after the other."""
AIMS = {"asr-others": (MISSING, TARGET, MISSING, MISSING)}
"""What the classes aim at, for metrics of poison that is not meant to move all of them."""


def random_outcomes(seed: int, count: int = 60, aims: Sequence[int] | None = None) -> Outcomes:
    """Complete outcomes of a model that is right about half of the time."""
    draws, further = np.random.default_rng(seed), np.random.default_rng(1000 + seed)  # one more kind moves nothing else
    label = draws.integers(CLASSES, size=count)

    def predictions() -> np.ndarray:
        return np.where(draws.random(count) < 0.5, label, draws.integers(CLASSES, size=count))

    adversarial = [np.where(draws.random(count) < 0.2, MISSING, predictions()) for _ in range(2)]

    def judgement() -> Judgement:
        poisoned, removed = draws.random(count) < 0.3, draws.random(count) < 0.4
        return Judgement(
            score=draws.random(count, dtype=np.float32) + np.float32(0.3) * poisoned, removed=removed, poisoned=poisoned
        )

    def verdict() -> Verdict:
        return Verdict(anomaly=3 * draws.random(CLASSES), suspects=(3, 1)[: draws.integers(3)], overlap=draws.random())

    def detection() -> Detection:
        calm = np.sort(further.random(40, dtype=np.float32))
        sorts = {
            sort: Inputs(
                suspicion=np.where(made, further.random(count), np.nan).astype(np.float32),
                prediction=np.where(made, np.where(further.random(count) < 0.5, TARGET, label), MISSING),
            )
            for sort in SORTS[1:]
            for made in [further.random(count) < 0.8]
        }
        benign = Inputs(suspicion=further.random(count, dtype=np.float32), prediction=label)
        return Detection(calm=calm, thresholds=calm[[38, 30]], sorts={"benign": benign, **sorts})

    def more() -> dict[str, list[tuple[float | None, np.ndarray]]]:
        values = {kind: RETUNED if kind.startswith("retuned") else (None,) for kind in kinds()}
        return {kind: [(value, further.permutation(label)) for value in some] for kind, some in values.items()}

    def model(adversarial: list[np.ndarray], **more: Any) -> Outcomes:
        return Outcomes(
            label=label,
            clean=predictions(),
            triggered=predictions(),
            adversarial=adversarial,
            attacks=2,
            target=TARGET,
            aims=aims,
            judgement=judgement(),
            verdict=verdict(),
            detection=detection(),
            **more,
        )

    return model(
        adversarial,
        toward=predictions(),
        away=predictions(),
        triggered_adversarial=[predictions() for _ in range(2)],
        strengths={0.5: np.where(draws.random(count) < 0.8, TARGET, label)},
        certified=draws.random(count) < 0.5,
        attention=draws.random(20),
        more=more(),
        twin=model([predictions() for _ in range(2)], more=more()),
        before=Outcomes(
            label=label,
            clean=further.permutation(label),
            triggered=further.permutation(label),
            target=TARGET,
            aims=aims,
        ),
    )


def at(outcomes: Outcomes, index: np.ndarray) -> Outcomes:
    """The outcomes of these images, in this order, with what is known of the model as a whole."""
    whole = {name: getattr(outcomes, name) for name in ("judgement", "verdict", "attention")}
    twin = None if outcomes.twin is None else at(outcomes.twin, index)
    return dataclasses.replace(outcomes.at(index), **whole, twin=twin)


def copies(outcomes: Any) -> Iterator[np.ndarray]:
    for value in vars(outcomes).values():
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        for part in parts:
            if isinstance(part, np.ndarray):
                yield part.copy()
            elif dataclasses.is_dataclass(part):
                yield from copies(part)


def check_unchanged(before: Sequence[np.ndarray], found: Outcomes) -> None:
    pairs = zip(before, copies(found), strict=True)
    assert all(np.array_equal(old, new, equal_nan=True) for old, new in pairs), "outcomes changed"


def check_number(metric: Number) -> None:
    """One number per model, the same whatever the order of the images; unknown without outcomes."""
    assert metric.title
    assert metric.better in ("higher", "lower")
    values = []
    for seed in range(8):
        found = random_outcomes(seed)
        before = list(copies(found))
        estimate = metric.number(found)
        check_unchanged(before, found)
        assert estimate is not None
        assert np.isfinite(estimate.value)
        assert estimate.n > 0
        if estimate.interval is not None:
            assert estimate.interval[0] <= estimate.value <= estimate.interval[1]
        if metric.yes_or_no:
            assert estimate.value in (0, 1)
        measure = summarise(metric, [found])
        assert (measure.value, measure.n, measure.unit) == (pytest.approx(estimate.value), estimate.n, metric.unit)
        if metric.unit == "fraction":
            assert 0 <= estimate.value <= 1
        shuffled = at(found, np.random.default_rng(seed).permutation(len(found.label)))
        assert metric.number(shuffled) == estimate, "the order of the images matters"
        values.append(estimate.value)
    assert len(set(values)) > 1, "the same number for every model"
    assert metric.number(Outcomes(label=np.array([0, 1, 2]))) is None, "a number from nothing"


def check_metric(metric: Metric) -> None:
    """A share of images that each are a success or not, whatever their order; unknown without outcomes."""
    if isinstance(metric, Number):
        check_number(metric)
        return
    assert metric.title
    assert metric.better in ("higher", "lower")
    assert metric.unit
    values = []
    for seed in range(5):
        found = random_outcomes(seed, aims=AIMS.get(catalog.name_of(metric)))
        before = list(copies(found))
        sample = metric.per_sample(found)
        check_unchanged(before, found)
        assert isinstance(sample, np.ndarray)
        assert sample.dtype == np.bool_
        assert sample.ndim == 1
        assert 0 < len(sample) <= len(found.label)
        check_counted(metric, found)
        measure = summarise(metric, [found])
        assert measure.value is not None
        assert 0 <= measure.low <= measure.value <= measure.high <= 1  # type: ignore[operator]
        assert (measure.n, measure.unit, measure.better) == (len(sample), metric.unit, metric.better)
        shuffled = at(found, np.random.default_rng(seed).permutation(len(found.label)))
        assert summarise(metric, [shuffled]) == measure, "the order of the images matters"
        values.append(measure.value)
    assert len(set(values)) > 1, "the same number for every model"
    bare = Outcomes(label=np.array([0, 1, 2]))
    assert metric.per_sample(bare) is None, "a number from nothing"
    assert summarise(metric, [bare]).value is None


def check_counted(metric: Metric, found: Outcomes) -> None:
    """`counted` names the images of the sample: those alone give the sample, and each its own part of it."""
    sample, counted = metric.per_sample(found), metric.counted(found)
    assert sample is not None
    assert counted.dtype == np.bool_
    assert counted.shape == found.label.shape
    for place, image in enumerate(np.flatnonzero(counted)[:10]):
        alone = metric.per_sample(at(found, np.array([image])))
        assert alone is not None
        assert list(alone) == [sample[place]], "other images count than it says"
    assert counted.sum() == len(sample), "other images count than it says"


def test_the_room_is_not_empty() -> None:
    assert {"accuracy", "robust-accuracy", "asr", "asr-paper", "asr-twin"} <= set(catalog.names("measure"))


@names
def test_metric(name: str) -> None:
    check_metric(catalog.build("measure", name))


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
def test_a_sample_of_no_images_is_no_number(name: str) -> None:
    metric = catalog.build("measure", name)
    empty = random_outcomes(0).at(np.array([], dtype=np.int64))
    assert summarise(metric, [empty]).value is None


@names
def test_it_is_a_frozen_component_that_its_description_rebuilds(name: str) -> None:
    metric = catalog.build("measure", name)
    assert catalog.build("measure", catalog.describe(metric)) == metric
    assert eval(repr(metric), vars(sys.modules[type(metric).__module__])) == metric
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.title = "Other"


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
        check_metric(metric)
