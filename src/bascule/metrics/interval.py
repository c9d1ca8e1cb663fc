"""Intervals of one number: Wilson over images, Student's t over seeds, both together. 95 % unless told otherwise.

Seeds' shares are compared on the logit scale, where a share near 0 may be small in most seeds and large in some.

Which interval, why, and what it covers in simulations: docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bascule.metrics.contract import Estimate, Measure, Metric, Number, Outcomes

CONFIDENCE = 0.95

Interval = tuple[float, float]


def quantile(confidence: float) -> float:
    """How many standard deviations a normal variable stays within, on both sides, with this probability."""
    return float(special.ndtri(0.5 + confidence / 2))


def wilson(share: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a share of `n` independent images (Wilson 1927)."""
    z = quantile(confidence)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not leave a share of exactly 0 or 1 outside.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def student_t(means: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Interval of the mean over at least two seeds, from the spread of the seeds' own means; not clipped."""
    count = len(means)
    half = float(special.stdtrit(count - 1, 0.5 + confidence / 2)) * float(np.std(means, ddof=1)) / sqrt(count)
    middle = float(np.mean(means))
    return middle - half, middle + half


def over_seeds(shares: Sequence[float], n: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of the mean share over at least two seeds, from the spread of the seeds' own shares; inside [0, 1].

    Shares near 0 are skewed over the seeds: small in most, large in some. So Student's t is taken on the logit scale,
    around the logit of the mean share. Two things are in doubt there, and their variances are added: where the seeds'
    middle lies (the variance of one seed by the number of seeds), and how far the mean lies beyond it, which is half
    that variance (Cox's method for the mean of a log-normal variable: Land 1972, Technometrics 14:145; Zhou & Gao 1997,
    Statistics in Medicine 16:783), times `1 - 2 share`, since the logistic curve bends up below 0.5 and down above.

    The variance of one seed is that of its share by the curve's slope at the mean (the delta method); towards 0 and 1,
    where that says too little of a large one, the variance of the seeds' logits if it is larger.

    Args:
        shares: The seeds' own, in [0, 1].
        n: What each is a share of; half a success and half a failure are added before a logit is taken.
        confidence: Probability to hold the mean.
    """
    seeds, value = len(shares), float(np.mean(shares))
    logits = special.logit((np.asarray(shares) * n + 0.5) / (n + 1))
    middle = (value * n + 0.5) / (n + 1)
    skewed = (1 - 2 * middle) ** 2
    by_slope = float(np.var(shares, ddof=1)) / (middle * (1 - middle)) ** 2
    variance = by_slope + skewed * max(0.0, float(np.var(logits, ddof=1)) - by_slope)
    doubt = sqrt(variance / seeds + skewed * variance**2 / (2 * (seeds - 1)))
    half = float(special.stdtrit(seeds - 1, 0.5 + confidence / 2)) * doubt
    below, above = (float(special.expit(special.logit(middle) + way * half)) - middle for way in (-1, 1))
    return min(value, max(0.0, value + below)), max(value, min(1.0, value + above))


def together(value: float, parts: Sequence[Interval], *, least: float, most: float = 1.0) -> Interval:
    """One interval around the value from several that each allow for another doubt, inside [least, most].

    Their distances from the value are added in squares on each side (MOVER: Zou & Donner 2008, Statistics in Medicine
    27:1693): those of the interval over the images and, with several seeds, of the one over the seeds.
    """
    below, above = (hypot(*(part[side] - value for part in parts)) for side in (0, 1))
    return max(least, value - below), min(most, value + above)


def summarise(metric: Metric, per_seed: Sequence[Outcomes]) -> Measure:
    """The metric over the seeds of one row: the mean of the seeds' shares.

    Its interval holds the doubt from the finite test set (Wilson), and with several seeds also the doubt from training
    anew (`over_seeds`), put `together`. Seeds without the needed outcomes are left out.
    """
    if isinstance(metric, Number):
        pooled = metric.pooled(per_seed)
        if pooled is not None:
            return _summarised(metric, [pooled])
        return _summarised(metric, [known for outcomes in per_seed if (known := metric.number(outcomes)) is not None])
    samples = [sample for outcomes in per_seed if (sample := metric.per_sample(outcomes)) is not None and len(sample)]
    if not samples:
        return Measure(value=None, low=None, high=None, n=None, unit=metric.unit, better=metric.better)
    means = [share_of(sample) for sample in samples]
    n = min(len(sample) for sample in samples)
    value = float(np.mean(means))
    parts = [wilson(value, n), *([over_seeds(means, n)] if len(means) > 1 else [])]
    low, high = together(value, parts, least=0.0)
    return Measure(value=value, low=low, high=high, n=n, unit=metric.unit, better=metric.better)


def _summarised(metric: Number, estimates: Sequence[Estimate]) -> Measure:
    """The mean over seeds of a number per model: with its own interval where known, and with Student's t.

    Shares with an interval of their own are taken over the seeds like those of test images (`over_seeds`). Seeds that
    agree exactly show no spread, which is no proof that there is none: their number has an interval only where each has
    its own. Of answers yes or no it is the share of yes, with Wilson's interval over the seeds.
    """
    if not estimates:
        return Measure(value=None, low=None, high=None, n=None, unit=metric.unit, better=metric.better)
    means = [estimate.value for estimate in estimates]
    value, n = float(np.mean(means)), min(estimate.n for estimate in estimates)
    low, high = _interval_of(metric, value, estimates)
    return Measure(value=value, low=low, high=high, n=n, unit=metric.unit, better=metric.better)


def _interval_of(metric: Number, value: float, estimates: Sequence[Estimate]) -> Interval | tuple[None, None]:
    means = [estimate.value for estimate in estimates]
    if metric.yes_or_no:
        return wilson(value, len(means))
    known = [(estimate.value, *estimate.interval) for estimate in estimates if estimate.interval is not None]
    if not known and len(set(means)) == 1:
        return None, None
    parts: list[Interval] = []
    if known:
        below, above = np.mean([(own - low, high - own) for own, low, high in known], axis=0)
        parts.append((value - float(below), value + float(above)))
    if len(means) > 1:
        n = min(estimate.n for estimate in estimates)
        parts.append(over_seeds(means, n) if known and metric.unit == "fraction" else student_t(means))
    least, most = (0.0, 1.0) if metric.unit == "fraction" else (-inf, inf)
    return together(value, parts, least=least, most=most)


def share_of(sample: NDArray[np.bool_]) -> float:
    """Share of successes."""
    return int(sample.sum()) / len(sample)
