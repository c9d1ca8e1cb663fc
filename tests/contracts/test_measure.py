"""What every metric keeps, whichever file or package it comes from: `bascule.testing.metrics`, on ours."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.metrics.contract import MISSING, Metric, Outcomes
from bascule.testing import metrics as contract
from bascule.testing.metrics import TARGET

names = pytest.mark.parametrize("name", catalog.names("measure"))

AIMS = {"asr-others": (MISSING, TARGET, MISSING, MISSING)}
"""What the classes aim at, for metrics of poison that is not meant to move all of them."""


def test_the_room_is_not_empty() -> None:
    assert {"accuracy", "robust-accuracy", "asr", "asr-paper", "asr-twin"} <= set(catalog.names("measure"))


@names
def test_metric(name: str) -> None:
    contract.check_metric(catalog.build("measure", name), aims=AIMS.get(name))


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
