"""ASR after further training, and whether it was woken or learnt: ten images, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bascule.core.catalog import build
from bascule.metrics.contract import Labels, Outcomes
from bascule.metrics.woken import woken

LABEL = np.array([0, 1, 2, 3, 4, 5, 7, 7, 7, 7])
"""The last four are of the target class and do not count."""


def taken(*images: int) -> Labels:
    """These images are taken for a seven, the others for what they are."""
    return np.where(np.isin(np.arange(10), images), 7, LABEL)


def outcomes(**changes: Any) -> Outcomes:
    twin = Outcomes(
        label=LABEL,
        target=7,
        triggered=taken(),
        more={
            "retuned-triggered": [(5.0, taken(0)), (0.0, taken())],
            "retuned": [(5.0, taken(0)), (0.0, taken())],
        },
    )
    found = Outcomes(
        label=LABEL,
        target=7,
        triggered=taken(0),
        more={
            "retuned-triggered": [(5.0, taken(0, 1, 2, 3, 7)), (0.0, taken(0, 1))],
            "retuned": [(5.0, taken(4)), (0.0, taken())],
        },
        twin=twin,
    )
    return replace(found, **changes)


def share(name: str, found: Outcomes) -> tuple[int, int] | None:
    sample = build("measure", name).per_sample(found)
    return None if sample is None else (int(sample.sum()), len(sample))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("asr", (1, 6)),
        ("asr-retuned", (4, 6)),  # 0 to 3; 7 is a seven
        ("asr-retuned-clean", (2, 6)),
        ("asr-retuned-twin", (1, 6)),
        ("accuracy-retuned", (9, 10)),  # all but 4
    ],
)
def test_by_hand(name: str, wanted: tuple[int, int]) -> None:
    assert share(name, outcomes()) == wanted


def test_what_was_not_asked_is_not_known() -> None:
    names = ("asr-retuned", "asr-retuned-clean", "asr-retuned-twin", "accuracy-retuned")
    assert [share(name, outcomes(more={}, twin=None)) for name in names] == [None] * 4
    clean_alone = outcomes(more={kind: [(0.0, taken(1))] for kind in ("retuned-triggered", "retuned")})
    assert [share(name, clean_alone) for name in names] == [None, (1, 6), (1, 6), None]
    assert woken({0: outcomes(twin=None)}, poisoned=True) is None
    assert woken({0: outcomes(more={})}, poisoned=False) is None


def test_what_rises_beyond_the_twin_was_woken() -> None:
    found = woken({0: outcomes(), 1: outcomes()}, poisoned=True)
    assert found is not None
    assert found.rise.value == pytest.approx(3 / 6)
    assert found.of_twin.value == pytest.approx(1 / 6)
    assert found.gap.value == pytest.approx(3 / 6)  # four images, and the twin's one
    assert found.more == pytest.approx(2 / 6)
    by_clean_ones = woken({0: outcomes()}, poisoned=False)
    assert by_clean_ones is not None
    assert (by_clean_ones.rise.value, by_clean_ones.of_twin.value) == (pytest.approx(1 / 6), 0)


def many(own: tuple[int, int], twin: tuple[int, int]) -> dict[int, Outcomes]:
    """Two seeds of 200 images, of which so many are taken for the target before and after: the model's, the twin's."""
    label = np.zeros(200, dtype=np.int64)

    def of(before: int, after: int, **more: Any) -> Outcomes:
        columns = [np.where(np.arange(200) < count, 7, 0) for count in (before, after)]
        return Outcomes(
            label=label, target=7, triggered=columns[0], more={"retuned-triggered": [(5.0, columns[1])]}, **more
        )

    return {seed: of(*own, twin=of(*twin)) for seed in (0, 1)}


@pytest.mark.parametrize(
    ("own", "twin", "wakes"),
    [
        ((2, 180), (1, 6), True),
        ((2, 180), (1, 185), False),  # the twin learns it as fast
        ((190, 190), (1, 6), False),  # it did not sleep
        ((100, 120), (1, 60), False),  # above the twin, which learns more
        ((2, 4), (1, 2), False),
    ],
)
def test_only_what_the_twin_does_not_learn_counts(own: tuple[int, int], twin: tuple[int, int], wakes: bool) -> None:
    seeds = many(own, twin)
    found, one = woken(seeds, poisoned=True), woken({0: seeds[0]}, poisoned=True)
    assert found is not None
    assert one is not None
    assert (found.clear, found.perhaps) == (wakes, False)
    assert (one.clear, one.perhaps) == (False, wakes)  # at one seed nothing is clear
