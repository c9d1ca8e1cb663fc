"""Which rows are beaten at both ends: by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.core.catalog import build
from bascule.metrics.contract import Outcomes
from bascule.metrics.pareto import Rivals, rivals_of

ENDS = (build("measure", "robust-accuracy"), build("measure", "asr"))
N = 400


def row(robust: float | None, asr: float | None, seeds: int = 2, first: int = 0) -> dict[int, Outcomes]:
    """All seeds alike: this share withstands the attack, this share follows the trigger."""
    places = np.arange(N)
    found = {}
    for seed in range(first, first + seeds):
        found[seed] = Outcomes(
            label=np.zeros(N, dtype=np.int64),
            clean=np.zeros(N, dtype=np.int64),
            adversarial=[] if robust is None else [np.where(places < robust * N, 0, 1)],
            attacks=1,
            triggered=None if asr is None else np.where(places < asr * N, 5, 0),
            target=5,
        )
    return found


def test_a_trade_off_beats_nobody() -> None:
    assert rivals_of([row(0.1, 0.1), row(0.6, 0.7)], ENDS) == [Rivals(), Rivals()]


def test_better_at_both_ends_beats() -> None:
    assert rivals_of([row(0.1, 0.7), row(0.6, 0.1)], ENDS) == [Rivals(clearly=(1,)), Rivals()]


def test_directions_are_the_metrics_own() -> None:
    ends = (build("measure", "accuracy"), *ENDS)  # alike in accuracy, so nobody is clearly better at all three
    assert rivals_of([row(0.1, 0.7), row(0.6, 0.1)], ends) == [Rivals(perhaps=(1,)), Rivals()]


@pytest.mark.parametrize(("robust", "asr"), [(0.5, 0.295), (0.505, 0.1), (0.505, 0.295), (0.9, 0.3)])
def test_what_is_not_separated_at_one_end_is_not_clearly_beaten(robust: float, asr: float) -> None:
    assert rivals_of([row(0.5, 0.3), row(robust, asr)], ENDS) == [Rivals(perhaps=(1,)), Rivals()]


@pytest.mark.parametrize("better", [145 / 360, 0.9])
def test_nobody_is_clearly_beaten_at_one_common_seed(better: float) -> None:
    rows = [row(130 / 360, 200 / 360, seeds=1), row(better, 180 / 360, seeds=1)]
    assert rivals_of(rows, ENDS) == [Rivals(perhaps=(1,)), Rivals()]
    other = row(better, 0.1, seeds=3)
    assert rivals_of([rows[0], other], ENDS) == [Rivals(perhaps=(1,)), Rivals()]


def test_equals_do_not_beat_each_other() -> None:
    assert rivals_of([row(0.5, 0.3), row(0.5, 0.3)], ENDS) == [Rivals(), Rivals()]


def test_one_step_forward_and_one_back_beats_nobody() -> None:
    assert rivals_of([row(0.5, 0.3), row(0.505, 0.305)], ENDS) == [Rivals(), Rivals()]


def test_every_rival_is_named() -> None:
    rows = [row(0.2, 0.8), row(0.5, 0.5), row(0.9, 0.9), row(0.505, 0.495)]
    assert rivals_of(rows, ENDS) == [Rivals(clearly=(1, 3)), Rivals(perhaps=(3,)), Rivals(), Rivals()]


def test_few_images_separate_less() -> None:
    few = [{seed: outcomes.at(np.arange(0, N, 40)) for seed, outcomes in row(*ends).items()} for ends in
           ((0.3, 0.6), (0.6, 0.3))]  # fmt: skip
    assert rivals_of([row(0.3, 0.6), row(0.6, 0.3)], ENDS)[0] == Rivals(clearly=(1,))
    assert rivals_of(few, ENDS)[0] == Rivals(perhaps=(1,))


def test_rows_without_a_number_are_left_out() -> None:
    rows = [row(None, 0.1), row(0.5, 0.5), row(0.6, 0.1), row(0.9, None), row(0.99, 0.01, first=7)]
    assert rivals_of(rows, ENDS) == [None, Rivals(clearly=(2,)), Rivals(), None, None]
