"""Intervals against SciPy, by simulation, and at the edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from bascule.core.catalog import build
from bascule.metrics.contract import Measure, Outcomes, Verdict
from bascule.metrics.interval import over_seeds, student_t, summarise, together, wilson
from bascule.metrics.ranking import auroc_interval, ranks


def seeds(*shares: tuple[int, int] | None) -> list[Outcomes]:
    """Outcomes with these (successes, images) under `accuracy`; None for a seed without predictions."""
    found = []
    for share in shares:
        right, n = share or (0, 5)
        clean = np.array([0] * right + [1] * (n - right)) if share else None
        found.append(Outcomes(label=np.zeros(n, dtype=np.int64), clean=clean))
    return found


ACCURACY = build("measure", "accuracy")


def accuracy(*shares: tuple[int, int] | None) -> Measure:
    return summarise(ACCURACY, seeds(*shares))


# --- Wilson ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("right", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (17, 360), (9_712, 10_000)], ids=str
)
def test_wilson_equals_scipys(right: int, n: int, confidence: float) -> None:
    wanted = stats.binomtest(right, n).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson(right / n, n, confidence) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilson_by_hand() -> None:
    # z = 1.959964 and z^2 = 3.841459; with all of n successes the lower end is n / (n + z^2).
    low, high = wilson(1.0, 10)
    assert low == pytest.approx(10 / 13.841459, abs=1e-6)
    assert high == 1


def test_wilson_holds_the_share_and_stays_between_zero_and_one() -> None:
    for n in range(1, 120):
        for right in range(n + 1):
            low, high = wilson(right / n, n)
            assert 0 <= low <= right / n <= high <= 1, (right, n)
            assert low < high


# --- Student ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("means", [(0.2, 0.4), (0.9, 0.91, 0.95, 0.9, 0.97)], ids=["two", "five"])
def test_student_equals_scipys(means: Sequence[float], confidence: float) -> None:
    wanted = stats.t.interval(confidence, len(means) - 1, loc=np.mean(means), scale=stats.sem(means))
    assert student_t(means, confidence) == pytest.approx(wanted)


def test_student_by_hand() -> None:
    # Two seeds: t = 12.706, standard error half their distance.
    assert student_t([0.49, 0.51]) == pytest.approx((0.5 - 0.12706, 0.5 + 0.12706), abs=1e-4)


# --- seeds' shares on the logit scale ---------------------------------------------------------------------------------


def test_shares_around_a_half_are_students_bent_into_the_possible() -> None:
    # Standard error 0.1 by the slope 0.25 is 0.4 on the logit scale, t = 12.7062, so the half is 5.08248; nothing is
    # skewed at 0.5, and expit(5.08248) = 0.993834.
    assert over_seeds([0.4, 0.6], 1000) == pytest.approx((1 - 0.993834, 0.993834), abs=1e-6)


def test_shares_near_zero_by_hand() -> None:
    # Of 1,000 images 10, 10 and 100: mean 0.04, middle 40.5 / 1001 = 0.0404595, its logit -3.166152.
    # Variance by the slope 0.0027 / 0.0388226^2 = 1.791411; of the logits -4.547, -4.547 and -2.193 it is 1.847172.
    # Weight (1 - 2 * 0.0404595)^2 = 0.844710, so 1.791411 + 0.844710 * 0.055761 = 1.838512 for one seed.
    # Doubt sqrt(1.838512 / 3 + 0.844710 * 1.838512^2 / 4) = 1.151800; times t = 4.302653 it is 4.955798.
    low, high = over_seeds([0.01, 0.01, 0.1], 1000)
    assert low == 0  # 0.04 - 0.0404595 + expit(-3.166152 - 4.955798) = -0.0001627
    assert high == pytest.approx(0.856424, abs=1e-6)  # expit(-3.166152 + 4.955798) less 0.0004595
    assert high > 4 * student_t([0.01, 0.01, 0.1])[1]


def test_shares_near_one_mirror_those_near_zero() -> None:
    shares = [0.01, 0.013, 0.02]
    low, high = over_seeds(shares, 5000)
    assert over_seeds([1 - share for share in shares], 5000) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("shares", [(0.0, 0.0), (1.0, 1.0), (0.3, 0.3, 0.3), (0.0, 1.0), (0.0, 1e-4), (1.0, 0.9, 1.0)])
def test_the_interval_over_seeds_holds_their_mean_and_stays_possible(shares: Sequence[float]) -> None:
    low, high = over_seeds(shares, 10_000)
    assert 0 <= low <= np.mean(shares) <= high <= 1
    assert (high - low < 1e-12) == (len(set(shares)) == 1)


# --- summaries -------------------------------------------------------------------------------------------------------


def test_one_seed_has_wilsons_interval() -> None:
    found = accuracy((30, 40))
    low, high = wilson(0.75, 40)
    assert found == Measure(value=0.75, low=low, high=high, n=40, unit="fraction", better="higher")


def test_several_seeds_have_both_doubts_added_in_squares() -> None:
    found = accuracy((30, 40), (34, 40), (32, 40))
    # By hand: Wilson's interval of 0.8 and 40 images is (0.8 + 0.048018 -+ 0.132935) / 1.096036.
    left, right = 0.8 - (0.848018 - 0.132935) / 1.096036, (0.848018 + 0.132935) / 1.096036 - 0.8
    low, high = over_seeds([0.75, 0.85, 0.8], 40)
    expected = (0.8, 0.8 - ((0.8 - low) ** 2 + left**2) ** 0.5, 0.8 + ((high - 0.8) ** 2 + right**2) ** 0.5)
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-5)
    assert found.n == 40


def test_the_parts_are_scipys() -> None:
    found = accuracy((70, 80), (75, 80), (66, 80), (71, 80))
    means = np.array([70, 75, 66, 71]) / 80
    t = over_seeds(list(means), 80)
    images = stats.binomtest(282, 320).proportion_ci(method="wilson")
    below, above = (np.hypot(t[side] - means.mean(), wilson(means.mean(), 80)[side] - means.mean()) for side in (0, 1))
    assert (found.low, found.high) == pytest.approx((means.mean() - below, min(1, means.mean() + above)))
    # Wider than either alone, and than the two together as if every seed had test images of its own.
    assert found.high - found.low > max(t[1] - t[0], images.high - images.low)  # type: ignore[operator]


@pytest.mark.parametrize("least", [0.0, -1.0])
def test_together_is_inside_what_is_possible(least: float) -> None:
    assert together(0.5, [(0.4, 0.6), (-5.5, 6.5)], least=least) == (max(least, 0.5 - np.hypot(0.1, 6)), 1.0)
    assert together(0.5, [(0.4, 0.6)], least=least) == pytest.approx((0.4, 0.6))
    assert together(0.5, [(0.2, 0.6), (0.1, 0.5)], least=least) == pytest.approx((0.0, 0.6))


def test_seeds_weigh_the_same_and_n_is_the_fewest() -> None:
    found = accuracy((1, 2), (90, 100))
    assert found.value == pytest.approx(0.7)
    assert found.n == 2


@pytest.mark.parametrize("right", [0, 13, 20])
def test_seeds_that_agree_exactly_keep_the_doubt_of_the_test_set(right: int) -> None:
    found = accuracy((right, 20), (right, 20), (right, 20))
    assert (found.value, found.low, found.high) == pytest.approx((right / 20, *wilson(right / 20, 20)))
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.low > 0.1


def test_intervals_are_clipped() -> None:
    found = accuracy((1, 100), (99, 100))
    assert (found.low, found.high) == (0.0, 1.0)
    assert student_t([0.01, 0.99])[0] < 0


@pytest.mark.parametrize("shares", [(), (None,), (None, None), ((0, 0),), (None, (0, 0))], ids=str)
def test_what_nobody_computed_is_none(shares: tuple) -> None:
    assert accuracy(*shares) == Measure(value=None, low=None, high=None, n=None, unit="fraction", better="higher")


def test_seeds_without_outcomes_are_left_out() -> None:
    assert accuracy(None, (30, 40), (0, 0)) == accuracy((30, 40))
    assert accuracy((30, 40), None, (34, 40)) == accuracy((30, 40), (34, 40))


def test_unit_and_direction_come_from_the_metric() -> None:
    found = summarise(build("measure", "asr"), seeds((1, 2)))
    assert (found.unit, found.better) == ("fraction", "lower")
    assert list(found.as_dict()) == ["value", "low", "high", "n", "unit", "better"]


# --- coverage --------------------------------------------------------------------------------------------------------


def covers(found: Measure, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= truth <= found.high


@pytest.mark.parametrize("truth", [0.02, 0.5, 0.97])
def test_one_seeds_interval_covers_the_truth(truth: float) -> None:
    draws = np.random.default_rng(0).binomial(200, truth, size=1000)
    share = np.mean([covers(accuracy((int(right), 200)), truth) for right in draws])
    assert 0.92 < share < 0.985


def crossed(
    draws: np.random.Generator, truth: float, seeds: int, n: int, *, seed: float, image: float
) -> tuple[np.ndarray, ...]:
    """Two rows of seeds x images that share seeds' and images' effects in part; a success is a positive sum."""
    level = stats.norm.ppf(truth) * np.sqrt(seed**2 + image**2 + 1)
    shared = image * draws.standard_normal(n)
    return tuple(
        level + seed * draws.standard_normal((seeds, 1)) + shared + draws.standard_normal((seeds, n)) > 0
        for _ in range(2)
    )


WORLDS = pytest.mark.parametrize(
    ("truth", "count", "seed", "image", "least", "most"),
    [
        (0.5, 5, 0.3, 1.0, 0.935, 1.0),
        (0.5, 2, 0.3, 1.0, 0.935, 0.99),
        (0.5, 10, 0.05, 1.0, 0.935, 1.0),  # where Student's alone is right two times of three
        (0.97, 3, 0.2, 1.0, 0.935, 1.0),
        (0.01, 5, 0.3, 0.5, 0.935, 1.0),
        (0.5, 4, 0.5, 0.0, 0.935, 0.985),  # all doubt is in the seeds: the nominal coverage
    ],
)


@WORLDS
def test_the_interval_covers_when_seeds_and_images_are_both_drawn_anew(
    truth: float, count: int, seed: float, image: float, least: float, most: float
) -> None:
    draws = np.random.default_rng(0)
    held, without_images, without_seeds = [], [], []
    for _ in range(800):
        right, _ = crossed(draws, truth, count, 200, seed=seed, image=image)
        found = accuracy(*((int(number), 200) for number in right.sum(axis=1)))
        held.append(covers(found, truth))
        means = right.mean(axis=1)
        low, high = student_t(means)
        without_images.append(low <= truth <= high)
        without_seeds.append(covers(accuracy((int(right.sum()), right.size)), truth))
    assert least < np.mean(held) <= most
    assert np.mean(held) > max(np.mean(without_seeds), np.mean(without_images))
    assert np.mean(without_seeds) < 0.93


def skewed(share: float, spread: float, count: int, n: int, draws: np.random.Generator) -> list[int]:
    """Successes of seeds whose shares are skewed: a normal effect of the seed on the scale of normal deviates."""
    level = stats.norm.ppf(share) * np.sqrt(1 + spread**2)
    return draws.binomial(n, stats.norm.cdf(level + spread * draws.standard_normal(count))).tolist()


@pytest.mark.parametrize(
    ("share", "spread", "count", "n"),
    [(0.01, 0.5, 2, 10_000), (0.01, 0.5, 3, 10_000), (0.99, 0.5, 5, 10_000), (0.02, 0.5, 10, 1_000), (0.1, 1, 3, 360)],
)
def test_the_interval_covers_where_shares_are_skewed_over_the_seeds(
    share: float, spread: float, count: int, n: int
) -> None:
    draws = np.random.default_rng(1)
    held, plain = [], []
    for _ in range(800):
        right = skewed(share, spread, count, n, draws)
        found = accuracy_of([number / n for number in right], n)
        held.append(found[0] <= share <= found[1])
        student = together(np.mean(right) / n, [wilson(np.mean(right) / n, n), student_t(np.array(right) / n)], least=0)
        plain.append(student[0] <= share <= student[1])
    assert np.mean(held) > 0.91
    assert np.mean(held) > np.mean(plain)


def accuracy_of(shares: Sequence[float], n: int) -> tuple[float, float]:
    """As `summarise` puts it together, without making the images."""
    value = float(np.mean(shares))
    return together(value, [wilson(value, n), over_seeds(shares, n)], least=0.0)


def test_the_parts_are_those_of_the_summary() -> None:
    found = accuracy((3, 400), (9, 400), (40, 400))
    assert (found.low, found.high) == accuracy_of([3 / 400, 9 / 400, 40 / 400], 400)


@pytest.mark.parametrize("count", [3, 10])
def test_where_seeds_agree_the_interval_is_hardly_wider_than_students(count: int) -> None:
    draws = np.random.default_rng(2)
    widths = []
    for share in (0.02, 0.1, 0.5, 0.9):
        for _ in range(100):
            right = draws.binomial(1000, share, count)
            value = float(right.mean() / 1000)
            low, high = accuracy_of(list(right / 1000), 1000)
            student = together(value, [wilson(value, 1000), student_t(right / 1000)], least=0)
            widths.append((high - low) / (student[1] - student[0]))
    assert np.median(widths) < 1.02
    assert np.quantile(widths, 0.9) < 1.25


# --- one number per model --------------------------------------------------------------------------------------------


def scans(*verdicts: tuple[tuple[float, ...], tuple[int, ...]]) -> list[Outcomes]:
    """For each seed the anomalies and suspects of the model; every twin's anomalies are 1 and less."""
    label = np.zeros(1, dtype=np.int64)
    twin = Outcomes(label=label, target=0, verdict=Verdict(anomaly=np.array([1.0, 0.5, 0.0]), suspects=()))
    return [
        Outcomes(label=label, target=0, verdict=Verdict(anomaly=np.array(anomaly), suspects=suspects), twin=twin)
        for anomaly, suspects in verdicts
    ]


FOUND, UNTESTED = ((9.0, 0.0, 0.0), (0,)), ((np.nan, np.nan, np.nan), (0,))


@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize(("name", "value"), [("scan-found", 1.0), ("scan-false-alarm", 0.0)])
def test_an_answer_that_all_seeds_agree_on_has_wilsons_interval_over_the_seeds(
    name: str, value: float, count: int
) -> None:
    found = summarise(build("measure", name), scans(*[FOUND] * count))
    assert (found.value, found.low, found.high) == (value, *wilson(value, count))


@pytest.mark.parametrize("count", [2, 3])
def test_models_that_do_not_overlap_leave_doubt_about_the_area(count: int) -> None:
    found = summarise(build("measure", "scan-auroc"), scans(*[FOUND] * count))
    assert found.value == 1
    assert found.low is not None
    assert found.low < 0.6


def test_an_area_over_models_that_were_not_tested_is_unknown() -> None:
    auroc_of = build("measure", "scan-auroc")
    assert summarise(auroc_of, scans(UNTESTED, UNTESTED)).value is None
    assert summarise(auroc_of, scans(FOUND, UNTESTED)) == summarise(auroc_of, scans(FOUND))


def test_a_number_without_doubt_of_its_own_has_no_interval_where_seeds_agree() -> None:
    verdict = Verdict(anomaly=np.ones(3), suspects=(), overlap=1.0)
    found = summarise(build("measure", "scan-overlap"), [Outcomes(label=np.zeros(1), verdict=verdict)] * 2)
    assert (found.value, found.low, found.high) == (1, None, None)


def test_the_interval_of_one_positive_and_one_negative_is_wilsons_of_one_image() -> None:
    assert auroc_interval(1.0, 1, 1) == pytest.approx(wilson(1.0, 1))
    assert auroc_interval(0.0, 1, 1) == pytest.approx(wilson(0.0, 1))


def test_the_ends_of_an_areas_interval_lie_at_the_wanted_score() -> None:
    ones, zeros, area = 12, 30, 0.8
    for end in auroc_interval(area, ones, zeros):
        q1, q2, extra = end / (2 - end), 2 * end**2 / (1 + end), (ones + zeros) / 2 - 1  # Hanley & McNeil 1982
        variance = (end * (1 - end) + extra * (q1 - end**2) + extra * (q2 - end**2)) / (ones * zeros)
        assert abs(end - area) / variance**0.5 == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize("count", [3, 10])
@pytest.mark.parametrize("area", [0.7, 0.95])
def test_an_areas_interval_holds_the_truth_with_few_models(count: int, area: float) -> None:
    draws = np.random.default_rng(0)
    shift = stats.norm.ppf(area) * 2**0.5
    held = []
    for _ in range(400):
        seen = (draws.normal(shift, 1, (count, 1)) > draws.normal(0, 1, count)).mean()
        low, high = auroc_interval(float(seen), count, count)
        held.append(low <= area <= high)
    assert np.mean(held) > 0.92  # Hanley & McNeil's standard error at the area seen: 0.28 for three and 0.95


@pytest.mark.parametrize("values", [[3.0], [2, 1, 2, 2, 0.5, 1], [1.0, np.nan, 0.0], np.arange(9)[::-1] % 4])
def test_ranks_are_those_of_scipy(values: Sequence[float]) -> None:
    np.testing.assert_array_equal(ranks(np.array(values)), stats.rankdata(values))
