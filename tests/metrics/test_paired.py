"""Paired differences: by hand, against McNemar's test and a likelihood maximised by SciPy, and by simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from bascule.core.catalog import build
from bascule.metrics.contract import Outcomes, Verdict
from bascule.metrics.interval import over_seeds, student_t, together
from bascule.metrics.paired import Difference, difference, paired_over_seeds, score_interval

Z = float(stats.norm.ppf(0.975))
ACCURACY = build("measure", "accuracy")


def outcomes(right: Any, **changes: Any) -> Outcomes:
    """Outcomes with these successes under `accuracy`."""
    found = np.asarray(right, dtype=bool)
    columns = {"label": np.zeros(len(found), dtype=np.int64), "clean": np.where(found, 0, 1)}
    return Outcomes(**columns | {"id": np.arange(len(found))} | changes)


def of(before: dict[int, Any], after: dict[int, Any]) -> Difference:
    return difference(
        ACCURACY,
        {seed: outcomes(right) for seed, right in before.items()},
        {seed: outcomes(right) for seed, right in after.items()},
    )


def table(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Successes before and after, with these counts."""
    before = np.repeat([True, False, True, False], (both, gained, lost, neither))
    after = np.repeat([True, True, False, False], (both, gained, lost, neither))
    return before, after


# --- the score interval ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gained", "lost", "n", "confidence", "low", "high"),
    [(60, 20, 1000, 0.95, 0.0231, 0.0584), (28, 25, 618, 0.9, -0.0148, 0.0247)],
)
def test_the_score_interval_equals_that_of_r(
    gained: int, lost: int, n: int, confidence: float, low: float, high: float
) -> None:
    """`scoreci.mp(lost, gained, n)` of R's PropCIs 0.3, to the digits it was published with."""
    assert score_interval(gained / n, lost / n, n, confidence) == pytest.approx((low, high), abs=5e-5)
    assert score_interval(lost / n, gained / n, n, confidence) == pytest.approx((-high, -low), abs=5e-5)


def score(gained: int, lost: int, n: int, wanted: float) -> float:
    """Distance of the difference seen from `wanted` in standard errors at the likeliest shares, found numerically."""

    def unlikely(share_lost: float) -> float:
        shares = np.array([share_lost + wanted, share_lost, 1 - wanted - 2 * share_lost])
        counts = np.array([gained, lost, n - gained - lost])
        return -float(np.sum(counts * np.log(np.maximum(shares, 1e-300))))

    low, high = max(0.0, -wanted), (1 - wanted) / 2
    best = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    variance = 2 * best.x + wanted - wanted**2
    return abs((gained - lost) / n - wanted) / float(np.sqrt(variance / n))


@pytest.mark.parametrize(
    ("gained", "lost", "n"), [(1, 2, 20), (5, 5, 30), (12, 3, 40), (0, 7, 50), (150, 20, 200), (3, 90, 100)], ids=str
)
def test_the_ends_lie_at_the_same_score(gained: int, lost: int, n: int) -> None:
    for end in score_interval(gained / n, lost / n, n):
        assert score(gained, lost, n, end) == pytest.approx(Z, abs=1e-3)


def test_zero_is_left_out_where_mcnemars_test_rejects() -> None:
    for n in (30, 200):
        for gained in range(0, 25):
            for lost in range(0, 25 - gained):
                low, high = score_interval(gained / n, lost / n, n)
                statistic = (gained - lost) ** 2 / max(1, gained + lost)
                assert (low > 0 or high < 0) == (statistic > stats.chi2.ppf(0.95, 1)), (gained, lost, n)
                assert -1 <= low <= (gained - lost) / n <= high <= 1
                assert low < high


def test_no_change_at_all_is_not_certainty() -> None:
    # With nothing gained or lost the ends are at z^2 / (n + z^2).
    assert score_interval(0, 0, 100) == pytest.approx((-0.036994, 0.036994), abs=1e-6)
    low, high = score_interval(1, 0, 10)
    assert high == 1
    assert low < 0.9


# --- differences -----------------------------------------------------------------------------------------------------


def test_one_seed_has_the_score_interval() -> None:
    before, after = table(both=50, gained=12, lost=3, neither=35)
    found = of({0: before}, {0: after})
    low, high = score_interval(0.12, 0.03, 100)
    assert (found.value, found.low, found.high) == pytest.approx((0.09, low, high))
    assert (found.before, found.after, found.n, found.seeds) == pytest.approx((0.53, 0.62, 100, 1))
    assert (found.unit, found.better, found.change, found.outcome) == ("fraction", "higher", "unclear", "unclear")


def test_several_seeds_have_both_doubts() -> None:
    pairs = [table(50, 20, 4, 26), table(40, 24, 2, 34), table(55, 15, 3, 27)]
    found = of({seed: pair[0] for seed, pair in enumerate(pairs)}, {seed: pair[1] for seed, pair in enumerate(pairs)})
    before, after = [0.54, 0.42, 0.58], [0.7, 0.64, 0.7]
    # The paired t interval as SciPy has it, and the images' from the mean shares of 59/300 gained and 9/300 lost.
    paired = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert student_t([0.16, 0.22, 0.12]) == pytest.approx((paired.low, paired.high))
    images = score_interval(59 / 300, 9 / 300, 100)
    seeds = paired_over_seeds(before, after, 100)
    assert seeds[0] <= paired.low < paired.high <= seeds[1]
    value = 50 / 300
    low = value - np.hypot(value - seeds[0], value - images[0])
    high = value + np.hypot(seeds[1] - value, images[1] - value)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high))
    assert found.seeds == 3


def test_without_skew_the_doubt_in_the_seeds_is_students() -> None:
    # Both rows are 0.5 in the mean, and two seeds' Student's interval is far wider than what is possible.
    assert paired_over_seeds([0.4, 0.6], [0.7, 0.3], 1000) == pytest.approx(student_t([0.3, -0.3]))
    assert paired_over_seeds([0.0, 0.0, 0.0], [0.2, 0.2, 0.2], 1000) == pytest.approx((0.2, 0.2))


def test_what_a_rows_own_skew_adds_is_added_where_it_points() -> None:
    after, n = [0.01, 0.01, 0.1], 1000
    plain, bent, student = student_t(after), over_seeds(after, n), student_t([-0.49, -0.49, -0.4])
    low, high = paired_over_seeds([0.5, 0.5, 0.5], after, n)
    more = (bent[1] - 0.04) ** 2 - (plain[1] - 0.04) ** 2
    assert high == pytest.approx(-0.46 + ((student[1] + 0.46) ** 2 + more) ** 0.5)
    assert low == pytest.approx(student[0])  # below it, `over_seeds` is the shorter one
    assert paired_over_seeds(after, [0.5, 0.5, 0.5], n) == pytest.approx((-high, -low))


def test_skew_that_both_rows_share_is_not_in_the_difference() -> None:
    before, n = [0.01, 0.01, 0.1], 1000
    same = paired_over_seeds(before, before, n)
    apart = paired_over_seeds(before, before[::-1], n)
    assert same == (0, 0)
    assert apart[1] > student_t([0.09, 0.0, -0.09])[1]


def test_seeds_are_paired_by_number_whatever_their_order() -> None:
    before, after = table(50, 20, 4, 26)
    other, changed = table(40, 24, 2, 34)
    straight = of({0: before, 1: other}, {0: after, 1: changed})
    assert of({1: other, 0: before}, {0: after, 1: changed}) == straight
    assert of({0: before, 1: other, 7: other}, {1: changed, 0: after, 8: after}) == straight


def test_what_all_seeds_share_does_not_widen_the_difference() -> None:
    """Seeds that are good or bad for both rows: the rows' own means spread widely, their difference does not."""
    levels = [20, 50, 80]
    before = {seed: np.arange(100) < level for seed, level in enumerate(levels)}
    after = {seed: np.arange(100) < level + 10 for seed, level in enumerate(levels)}
    found = of(before, after)
    assert (found.value, found.change) == (pytest.approx(0.1), "up")
    assert student_t([0.2, 0.5, 0.8])[1] > 1


def test_the_other_way_round_is_the_same_with_the_other_sign() -> None:
    pairs = [table(50, 20, 4, 26), table(40, 24, 2, 34)]
    before, after = ({seed: pair[side] for seed, pair in enumerate(pairs)} for side in (0, 1))
    there, back = of(before, after), of(after, before)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))  # type: ignore[operator]
    assert (back.before, back.after) == (there.after, there.before)


def test_a_row_does_not_differ_from_itself() -> None:
    before, _ = table(50, 20, 4, 26)
    found = of({0: before, 1: ~before}, {0: before, 1: ~before})
    assert found.value == 0
    assert found.change == found.outcome == "unclear"
    assert found.low is not None
    assert found.low < 0 < found.high  # type: ignore[operator]


@pytest.mark.parametrize(
    ("low", "high", "change", "higher", "lower"),
    [
        (0.1, 0.2, "up", "better", "worse"),
        (-0.2, -0.1, "down", "worse", "better"),
        (0.0, 0.2, "unclear", "unclear", "unclear"),
        (-0.1, 0.0, "unclear", "unclear", "unclear"),
        (None, None, "missing", "missing", "missing"),
    ],
)
def test_what_a_difference_means(low: float | None, high: float | None, change: str, higher: str, lower: str) -> None:
    for better, outcome in (("higher", higher), ("lower", lower)):
        found = Difference(
            value=low, low=low, high=high, before=0.5, after=0.5, n=9, seeds=2, unit="fraction", better=better
        )
        assert (found.change, found.outcome) == (change, outcome)


def test_nothing_is_clear_at_one_seed_or_without_an_interval() -> None:
    found = Difference(
        value=0.5, low=0.4, high=0.6, before=0.0, after=0.5, n=9, seeds=2, unit="fraction", better="higher"
    )
    assert found.change == "up"
    assert replace(found, seeds=1).change == "unclear"
    assert replace(found, low=None, high=None).change == "unclear"


# --- what cannot be paired -------------------------------------------------------------------------------------------


NOTHING = (None, None, None, None, None, None)


def numbers(found: Difference) -> tuple:
    return found.value, found.low, found.high, found.before, found.after, found.n


def test_without_a_common_seed_there_is_no_difference() -> None:
    before, after = table(50, 20, 4, 26)
    found = of({0: before}, {1: after})
    assert (*numbers(found), found.seeds) == (*NOTHING, 0)


def test_seeds_without_outcomes_are_left_out() -> None:
    before, after = (outcomes(part) for part in table(50, 20, 4, 26))
    unknown = outcomes(np.ones(100), clean=None)
    found = difference(ACCURACY, {0: before, 1: before}, {0: after, 1: unknown})
    assert found == difference(ACCURACY, {0: before}, {0: after})
    assert difference(ACCURACY, {0: before}, {0: unknown}).seeds == 0


@pytest.mark.parametrize(
    "changes",
    [{"id": np.arange(100) + 1}, {"label": np.arange(100) % 2}, {"id": np.arange(100)[::-1]}],
    ids=["ids", "labels", "order"],
)
def test_other_images_are_not_paired(changes: dict) -> None:
    before, after = table(50, 20, 4, 26)
    found = difference(ACCURACY, {0: outcomes(before)}, {0: outcomes(after, **changes)})
    assert (*numbers(found), found.seeds) == (*NOTHING, 1)


def test_images_without_ids_are_paired_by_their_labels() -> None:
    before, after = table(50, 20, 4, 26)
    found = difference(ACCURACY, {0: outcomes(before, id=None)}, {0: outcomes(after)})
    assert found.value == pytest.approx(0.16)


def test_rows_that_count_other_images_are_not_paired() -> None:
    """Other targets leave out other images, as many; the paper's count depends on the model's own predictions."""
    label = np.array([0, 0, 1, 1, 2, 2])

    def row(target: int, clean: list[int]) -> dict[int, Outcomes]:
        return {0: Outcomes(label=label, clean=np.array(clean), triggered=np.full(6, target), target=target)}

    asr, paper = build("measure", "asr"), build("measure", "asr-paper")
    same, moved = [0, 0, 1, 1, 2, 2], [2, 0, 1, 1, 2, 0]
    assert numbers(difference(asr, row(0, same), row(1, same))) == NOTHING
    assert difference(asr, row(1, same), row(1, moved)).value == 0
    assert numbers(difference(paper, row(2, same), row(2, moved))) == NOTHING
    assert difference(paper, row(2, same), row(2, same)).value == 0


def test_plain_values() -> None:
    before, after = table(50, 20, 4, 26)
    found = of({0: before}, {0: after}).as_dict()
    assert list(found) == ["value", "low", "high", "before", "after", "n", "seeds", "unit", "better"]


# --- coverage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "count", "seed", "image", "most"),
    [
        (0.5, 0.5, 3, 0.2, 1.0, 1.0),
        (0.9, 0.93, 1, 0.0, 1.0, 0.98),  # one seed, no doubt in the seeds: the score interval alone
        (0.1, 0.6, 2, 0.3, 0.5, 0.99),
        (0.98, 0.99, 5, 0.2, 1.0, 1.0),
        (0.4, 0.5, 4, 0.5, 0.0, 0.985),  # all doubt is in the seeds
    ],
)
def test_the_interval_covers_when_seeds_and_images_are_both_drawn_anew(
    old: float, new: float, count: int, seed: float, image: float, most: float
) -> None:
    draws, n = np.random.default_rng(0), 150
    held = []
    for _ in range(600):
        shared = image * draws.standard_normal(n)
        rights = []
        for truth in (old, new):
            level = stats.norm.ppf(truth) * np.sqrt(seed**2 + image**2 + 1)
            effects = level + seed * draws.standard_normal((count, 1)) + shared
            rights.append(dict(enumerate(effects + draws.standard_normal((count, n)) > 0)))
        found = of(*rights)
        held.append(found.low <= new - old <= found.high)  # type: ignore[operator]
    assert 0.93 < np.mean(held) <= most


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [((0.02, 0.0), (0.02, 0.7), 3), ((0.02, 0.7), (0.02, 0.7), 5), ((0.99, 0.5), (0.9, 0.7), 3)],
)
def test_the_difference_covers_where_shares_are_skewed_over_the_seeds(
    old: tuple[float, float], new: tuple[float, float], count: int
) -> None:
    """Shares and spreads between seeds, on the scale of normal deviates; 10,000 images that fall independently."""
    draws, n, truth = np.random.default_rng(0), 10_000, new[0] - old[0]
    held, plain = [], []
    for _ in range(500):
        levels = [stats.norm.ppf(share) * (1 + spread**2) ** 0.5 + spread * draws.standard_normal(count)
                  for share, spread in (old, new)]  # fmt: skip
        before, after = (draws.binomial(n, stats.norm.cdf(level)) / n for level in levels)
        value = float(np.mean(after - before))
        images = score_interval(float(np.mean(after * (1 - before))), float(np.mean(before * (1 - after))), n)
        for found, seeds in (
            (held, paired_over_seeds(list(before), list(after), n)),
            (plain, student_t(after - before)),
        ):
            low, high = together(value, [images, seeds], least=-1.0)
            found.append(low <= truth <= high)
    assert np.mean(held) > 0.9
    assert np.mean(held) >= np.mean(plain)


def test_numbers_per_model_are_compared_over_the_seeds() -> None:
    def found(overlap: float | None) -> Outcomes:
        verdict = Verdict(anomaly=np.zeros(3), suspects=(), overlap=overlap)
        return Outcomes(label=np.zeros(4, dtype=np.int64), verdict=verdict)

    metric = build("measure", "scan-overlap")
    before = {seed: found(value) for seed, value in enumerate([0.1, 0.2, 0.3, 0.9])}
    after = {seed: found(value) for seed, value in enumerate([0.3, 0.5, 0.4, None])}
    seen = difference(metric, before, after)
    expected = stats.ttest_rel([0.3, 0.5, 0.4], [0.1, 0.2, 0.3]).confidence_interval()
    assert (seen.value, seen.before, seen.after) == pytest.approx((0.2, 0.2, 0.4))
    assert seen.seeds == 3
    assert (seen.low, seen.high) == pytest.approx((expected.low, expected.high))
    alone = difference(metric, {0: before[0]}, {0: after[0]})
    assert (alone.value, alone.low, alone.high, alone.change) == (pytest.approx(0.2), None, None, "unclear")


def answers(*found: bool) -> dict[int, Outcomes]:
    """By seed, whether the scanner names the target, and an overlap that agrees."""
    return {
        seed: outcomes([True], target=0, verdict=Verdict(anomaly=np.ones(2), suspects=(0,) * yes, overlap=float(yes)))
        for seed, yes in enumerate(found)
    }


def test_answers_are_compared_by_the_score_interval_over_the_seeds() -> None:
    metric = build("measure", "scan-found")
    three = difference(metric, answers(False, False, False), answers(True, True, True))
    assert (three.value, three.seeds, three.change) == (1.0, 3, "unclear")  # McNemar: 3 < 3.84
    four = difference(metric, answers(*[False] * 4), answers(*[True] * 4))
    assert four.change == "up"
    mixed = difference(metric, answers(True, False, False), answers(False, True, True))
    assert (mixed.low, mixed.high) == score_interval(2 / 3, 1 / 3, 3)


def test_numbers_whose_differences_agree_exactly_have_no_interval() -> None:
    found = difference(build("measure", "scan-overlap"), answers(False, False), answers(True, True))
    assert (found.value, found.low, found.high, found.change) == (1.0, None, None, "unclear")
