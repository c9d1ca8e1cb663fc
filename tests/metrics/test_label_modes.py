"""Metrics of poison that aims at more than one label, or from some classes alone: ten images, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bascule.core.catalog import build
from bascule.metrics.contract import MISSING, Outcomes, Verdict

X = MISSING
LABEL = [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
CLEAN = [0, 1, 1, 1, 2, 2, 2, 3, 0, 3]  # 1, 4 and 8 are wrong
ADVERSARIAL = [1, X, 1, 2, X, 0, 3, 0, X, 2]  # of the others only 2 withstands
ALL_TO_ALL = (1, 2, 3, 0)
FROM_ONES = (X, 0, X, X)
"""Source class 1, target 0."""


def outcomes(triggered: list[int], aims: tuple[int, ...], target: int | None, **more: Any) -> Outcomes:
    return Outcomes(
        label=np.array(LABEL),
        clean=np.array(CLEAN),
        triggered=np.array(triggered),
        adversarial=[np.array(ADVERSARIAL)],
        attacks=1,
        target=target,
        aims=aims,
        **more,
    )


def next_label(**more: Any) -> Outcomes:
    # aims:                1  1  2  2  2  3  3  0  0  0
    return outcomes([1, 1, 2, 1, 2, 3, 2, 0, 0, 3], ALL_TO_ALL, None, **more)


def from_ones(**more: Any) -> Outcomes:
    # aims:                .  .  0  0  0  .  .  .  .  .
    return outcomes([0, 3, 0, 1, 0, 0, 2, 0, 3, 3], FROM_ONES, 0, **more)


def share(name: str, found: Outcomes) -> tuple[int, int] | None:
    """Successes and images that count."""
    sample = build("measure", name).per_sample(found)
    return None if sample is None else (int(sample.sum()), len(sample))


@pytest.mark.parametrize(
    ("name", "all_to_all", "source_specific"),
    [
        # All count, and 0, 1, 2, 4, 5, 7 and 8 are taken for the class after theirs; of the ones (2, 3, 4) 2 and 4.
        ("asr", (7, 10), (2, 3)),
        # Nothing is left out; of the twos and threes (5 to 9) 5 and 7 are taken for 0. The zeros are right there.
        ("asr-others", None, (2, 5)),
        # Still their own: 3, 6 and 9; of the ones 3.
        ("triggered-accuracy", (3, 10), (1, 3)),
        # Less 1, 4 and 8, which are where they are meant to go when clean: 0, 2, 5 and 7 of 0, 2, 3, 5, 6, 7 and 9.
        ("asr-paper", (4, 7), (2, 3)),
        # Right when clean and fooled: 0, 3, 5, 6, 7, 9, which go to 1, 2, 0, 3, 0, 2: all but 5 and 9 to the next
        # class. Of the ones there is 3, which goes to 2.
        ("drift", (4, 6), (0, 1)),
    ],
)
def test_by_hand(name: str, all_to_all: tuple[int, int] | None, source_specific: tuple[int, int]) -> None:
    assert share(name, next_label()) == all_to_all
    assert share(name, from_ones()) == source_specific


def test_the_twin_is_counted_on_the_same_images() -> None:
    found = next_label(twin=next_label())
    assert share("asr-twin", found) == (7, 10)
    assert share("asr-twin", from_ones(twin=outcomes(CLEAN, FROM_ONES, 0))) == (0, 3)


def test_help_and_opposition_by_hand() -> None:
    # Pushed, 3 and 6 reach their next class; opposed, 0 and 8 do not stay there.
    toward = np.array([X, X, X, 2, X, X, 3, X, X, 3])
    away = np.array([0, 1, 2, X, 2, 3, X, 0, 3, X])
    assert share("asr-toward", next_label(toward=toward)) == (9, 10)
    assert share("asr-away", next_label(away=away)) == (5, 10)
    assert share("asr-toward", from_ones(toward=np.array([X, X, X, 0, X, X, X, X, X, X]))) == (3, 3)


def test_half_strength_by_hand() -> None:
    half = [1, 1, 1, 1, 2, 2, 2, 3, 0, 3]
    estimate = build("measure", "trigger-strength").number(next_label(strengths={0.5: np.array(half)}))
    # At 0.5 four of ten (0, 1, 4, 8), at full strength seven: half of them a third of the way between.
    assert estimate.value == pytest.approx(0.5 + 0.5 / 3)
    assert estimate.n == 10


@pytest.mark.parametrize(("suspects", "all_to_all", "source_specific"), [((2, 0), 1, 0), ((0,), 1, 1), ((), 0, 0)])
def test_a_scanner_is_right_with_any_class_that_is_aimed_at(
    suspects: tuple[int, ...], all_to_all: int, source_specific: int
) -> None:
    verdict, metric = Verdict(anomaly=np.zeros(4), suspects=suspects), build("measure", "scan-found")
    assert metric.number(next_label(verdict=verdict)).value == all_to_all
    assert metric.number(from_ones(verdict=verdict)).value == source_specific


def test_one_target_for_every_other_class_is_the_same_written_out() -> None:
    triggered = [0, 0, 0, 1, 0, 2, 0, 3, 0, 0]
    for name in ("asr", "triggered-accuracy", "drift"):
        assert share(name, outcomes(triggered, (X, 0, 0, 0), 0)) == share(name, outcomes(triggered, None, 0))  # type: ignore[arg-type]
    assert share("asr-others", outcomes(triggered, None, 0)) is None  # type: ignore[arg-type]


def test_the_worst_of_several_triggers_by_hand() -> None:
    metric = build("measure", "asr-worst")
    others = [(0.0, np.array([1, 1, 0, 1, 1, 1, 1, 1, X, X])), (1.0, np.array([0, X, X, X, X, X, X, X, X, 1]))]
    # The own 7 of 10, the first other 7 of 8, the second 1 of 2.
    estimate = metric.number(next_label(more={"triggered-others": others}))
    assert (estimate.value, estimate.n) == (7 / 8, 8)
    assert metric.number(next_label(more={"triggered-others": others[1:]})).value == 7 / 10
    assert metric.number(next_label()) is None
