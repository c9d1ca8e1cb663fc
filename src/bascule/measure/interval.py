"""Intervals of one number: Wilson over images, Student's t over seeds, both together. 95 % unless told otherwise.

Which interval, why, and what it covers in simulations: docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bascule.measure import Estimate, Measure, Metric, Number, Outcomes

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


def together(value: float, over_images: Interval, means: Sequence[float], least: float, most: float = 1.0) -> Interval:
    """Interval of the mean over seeds that all see the same images, inside [least, most].

    The distances of Student's interval over the seeds and of the interval over the images from the value are added in
    squares on each side (MOVER: Zou & Donner 2008, Statistics in Medicine 27:1693). With one seed there is no spread to
    see and the interval is that over the images.

    Args:
        value: The mean of `means`.
        over_images: Interval around the value that allows for other images.
        means: The seeds' own values.
        least: Smallest value possible.
        most: Largest value possible.
    """
    parts = [over_images, *([student_t(means)] if len(means) > 1 else [])]
    below, above = (hypot(*(part[side] - value for part in parts)) for side in (0, 1))
    return max(least, value - below), min(most, value + above)


def summarise(metric: Metric, per_seed: Sequence[Outcomes]) -> Measure:
    """The metric over the seeds of one row: the mean of the seeds' shares.

    Its interval holds the doubt from the finite test set (Wilson), and with several seeds also the doubt from training
    anew (Student's t), see `together`. Seeds without the needed outcomes are left out.
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
    low, high = together(value, wilson(value, n), means, least=0.0)
    return Measure(value=value, low=low, high=high, n=n, unit=metric.unit, better=metric.better)


def _summarised(metric: Number, estimates: Sequence[Estimate]) -> Measure:
    """The mean over seeds of a number per model: with its own interval where known, and with Student's t.

    Seeds that agree exactly show no spread, which is no proof that there is none: their number has an interval only
    where each has its own. Of answers yes or no it is the share of yes, with Wilson's interval over the seeds.
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
    below, above = np.mean([(own - low, high - own) for own, low, high in known], axis=0) if known else (0.0, 0.0)
    least, most = (0.0, 1.0) if metric.unit == "fraction" else (-inf, inf)
    return together(value, (value - below, value + above), means, least=least, most=most)


def share_of(sample: NDArray[np.bool_]) -> float:
    """Share of successes."""
    return int(sample.sum()) / len(sample)
