"""What changes between two rows that were trained with the same seeds and evaluated on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from typing import Any, Literal

import numpy as np

from bascule.metrics.contract import Estimate, Metric, Number, Outcomes
from bascule.metrics.interval import CONFIDENCE, Interval, over_seeds, quantile, share_of, student_t, together

Seeds = Mapping[int, Outcomes]
"""The outcomes of one row by seed."""

LEAST_SEEDS = 2
"""Common seeds without which no difference is clear: one seed says nothing of what training anew would change.

Of two rows of one model each that came as it is nothing is trained anew: what is asked is how these two differ, and one
is enough.
"""
_HALVINGS = 60
"""Until the ends of an interval are known to 1e-18."""


def least_seeds(*rows: Seeds) -> int:
    """Common seeds without which no difference between these rows is clear.

    One between rows of one model each that came as it is; of several in a row, which one stands under which seed is
    somebody's naming, and says nothing of the others.
    """
    alone = all(len(row) == 1 and next(iter(row.values())).given for row in rows)
    return 1 if alone else LEAST_SEEDS


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of one row less that of another, with its doubt. All None when the two cannot be paired."""

    value: float | None
    """In [-1, 1] for shares."""
    low: float | None
    high: float | None
    before: float | None
    """The metric of the row compared with, over the seeds that both rows have."""
    after: float | None
    """The metric of the row itself, over the same seeds."""
    n: int | None
    """Images that counted."""
    seeds: int
    """Seeds for which both rows have the metric."""
    unit: str
    better: str
    least_seeds: int = LEAST_SEEDS
    """Common seeds without which it is not clear."""

    @property
    def too_few_seeds(self) -> bool:
        """Whether it is known, at fewer seeds than make a difference clear."""
        return 0 < self.seeds < self.least_seeds

    @property
    def change(self) -> Literal["up", "down", "unclear", "missing"]:
        """Where the metric goes; unclear while the interval holds 0, without one, and at too few seeds."""
        if self.value is None:
            return "missing"
        if self.low is None or self.high is None or self.too_few_seeds:
            return "unclear"
        if self.low > 0:
            return "up"
        return "down" if self.high < 0 else "unclear"

    @property
    def outcome(self) -> Literal["better", "worse", "unclear", "missing"]:
        """What the change means, given the metric's direction."""
        if self.change == "unclear" or self.change == "missing":
            return self.change
        return "better" if (self.change == "up") == (self.better == "higher") else "worse"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: value for name, value in vars(self).items() if name != "least_seeds"}


def difference(metric: Metric, before: Seeds, after: Seeds) -> Difference:
    """The metric of the row `after` less that of the row `before`, paired by seed and by image.

    The mean over the seeds of the differences within a seed. Its interval holds the doubt from the finite test set
    (`score_interval`, with the discordant shares averaged over the seeds), and with several seeds also the doubt from
    training anew (`paired_over_seeds`), put together as for a single number.

    Seeds without the needed outcomes in either row are left out. None when no seed is left, or when in one of them the
    images that count are not the same in both rows.

    A metric that is one number per model has the interval over the seeds alone: a difference without an interval where
    there is one seed, or where the seeds' differences are all the same. One that answers yes or no has the score
    interval over the seeds.
    """
    if isinstance(metric, Number):
        return _of_numbers(metric, before, after)
    common = [(before[seed], after[seed]) for seed in before if seed in after]
    answered = [pair for pair in common if all(_answers(metric, outcomes) for outcomes in pair)]
    pairs = [paired_samples(metric, *pair) for pair in answered]
    known = [pair for pair in pairs if pair is not None]
    if not known or len(known) < len(pairs):
        return Difference(
            value=None, low=None, high=None, before=None, after=None, n=None, seeds=len(answered), unit=metric.unit,
            better=metric.better,
        )  # fmt: skip
    n = min(len(old) for old, _ in known)
    gained = float(np.mean([share_of(new & ~old) for old, new in known]))
    lost = float(np.mean([share_of(old & ~new) for old, new in known]))
    olds, news = [share_of(old) for old, _ in known], [share_of(new) for _, new in known]
    value = float(np.mean([new - old for old, new in zip(olds, news, strict=True)]))
    parts = [score_interval(gained, lost, n), *([paired_over_seeds(olds, news, n)] if len(known) > 1 else [])]
    low, high = together(value, parts, least=-1.0)
    return Difference(
        value=value, low=low, high=high, n=n, seeds=len(known), unit=metric.unit, better=metric.better,
        before=float(np.mean(olds)), after=float(np.mean(news)), least_seeds=least_seeds(before, after),
    )  # fmt: skip


def _of_numbers(metric: Number, before: Seeds, after: Seeds) -> Difference:
    common = [seed for seed in before if seed in after]
    answers = [(metric.number(before[seed]), metric.number(after[seed])) for seed in common]
    known = [(old, new) for old, new in answers if old is not None and new is not None]
    if not known:
        return Difference(
            value=None, low=None, high=None, before=None, after=None, n=None, seeds=0, unit=metric.unit,
            better=metric.better,
        )  # fmt: skip
    low, high = _interval_of_numbers(metric, known)
    before_, after_ = (float(np.mean([pair[side].value for pair in known])) for side in (0, 1))
    return Difference(
        value=float(np.mean([new.value - old.value for old, new in known])), low=low, high=high,
        n=min(new.n for _, new in known), seeds=len(known), unit=metric.unit, better=metric.better,
        before=before_, after=after_,
    )  # fmt: skip


def _interval_of_numbers(metric: Number, known: Sequence[tuple[Estimate, Estimate]]) -> Interval | tuple[None, None]:
    changes = [new.value - old.value for old, new in known]
    if metric.yes_or_no:
        gained, lost = (share_of(np.array(changes) * sign > 0) for sign in (1, -1))
        return score_interval(gained, lost, len(changes))
    if len(set(changes)) == 1:
        return None, None
    if metric.unit != "fraction" or any(estimate.interval is None for pair in known for estimate in pair):
        return student_t(changes)
    n = min(estimate.n for pair in known for estimate in pair)
    low, high = paired_over_seeds([old.value for old, _ in known], [new.value for _, new in known], n)
    return max(-1.0, low), min(1.0, high)


def paired_over_seeds(before: Sequence[float], after: Sequence[float], n: int) -> Interval:
    """Interval of the mean difference of two rows' shares over at least two seeds, paired by seed; not clipped.

    Student's t over the seeds' differences, which is too short where a row's own shares are skewed. What `over_seeds`
    adds to Student's distances for each row is added here too, in squares: above the difference what it adds above the
    later row and below the earlier one. It counts by the part of the rows' variances that their seeds do not share,
    since what goes up and down in both alike leaves no skew in the difference.

    Args:
        before: The seeds' own shares in the earlier row, in [0, 1].
        after: In the later row, in the same order.
        n: What each is a share of.
    """
    changes = [new - old for old, new in zip(before, after, strict=True)]
    value, (low, high) = float(np.mean(changes)), student_t(changes)
    whole = float(np.var(before, ddof=1) + np.var(after, ddof=1))
    own = sqrt(min(1.0, float(np.var(changes, ddof=1)) / whole)) if whole > 0 else 0.0
    (before_below, before_above), (after_below, after_above) = (_skew(shares, n) for shares in (before, after))
    return (
        value - hypot(value - low, own * after_below, own * before_above),
        value + hypot(high - value, own * after_above, own * before_below),
    )


def _skew(shares: Sequence[float], n: int) -> tuple[float, float]:
    """How much farther below and above the mean `over_seeds` reaches than Student's interval, in squares."""
    value, plain, bent = float(np.mean(shares)), student_t(shares), over_seeds(shares, n)
    below, above = (sqrt(max(0.0, (bent[side] - value) ** 2 - (plain[side] - value) ** 2)) for side in (0, 1))
    return below, above


def same_images(first: Outcomes, second: Outcomes) -> bool:
    """Whether two models answered for the same images, in the same order."""
    known = first.id is not None and second.id is not None
    return np.array_equal(first.label, second.label) and (not known or np.array_equal(first.id, second.id))  # type: ignore[arg-type]


def score_interval(gained: float, lost: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a difference of shares of the same `n` images (Tango 1998, Statistics in Medicine 17:891).

    It leaves out 0 exactly where McNemar's test (without correction) rejects, and has a width where nothing changed.

    Args:
        gained: Share of the images that are a success in the second row only.
        lost: Share of the images that are a success in the first row only.
        n: Images.
        confidence: Probability to hold the true difference.
    """
    return -_upper(lost, gained, n, quantile(confidence)), _upper(gained, lost, n, quantile(confidence))


def _upper(gained: float, lost: float, n: int, z: float) -> float:
    """The largest difference that lies within `z` of its own standard errors of the difference seen."""
    seen = gained - lost
    low, high = seen, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (middle - seen) ** 2 * n > z * z * _variance(gained, lost, middle):
            high = middle
        else:
            low = middle
    return high


def _variance(gained: float, lost: float, difference: float) -> float:
    """Of one image's change, at the likeliest shares that have this difference."""
    rest = difference * (1 - difference)
    b = (2 - gained + lost) * difference - gained - lost
    likeliest_lost = (sqrt(max(0.0, b * b + 8 * lost * rest)) - b) / 4
    return max(0.0, 2 * likeliest_lost + rest)


def _answers(metric: Metric, outcomes: Outcomes) -> bool:
    sample = metric.per_sample(outcomes)
    return sample is not None and len(sample) > 0


def paired_samples(metric: Metric, before: Outcomes, after: Outcomes) -> tuple[Any, Any] | None:
    """The successes of two models on the images that count; None when these are not the same in both, or not known."""
    old, new = metric.per_sample(before), metric.per_sample(after)
    if old is None or new is None or not same_images(before, after):
        return None
    counted = metric.counted(before)
    if not np.array_equal(counted, metric.counted(after)) or not len(old) == len(new) == counted.sum():
        return None
    return old, new
