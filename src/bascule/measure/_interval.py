"""Intervals: Wilson within a seed, Student's t over seeds. 95 % unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bascule.measure import Measure, Metric, Outcomes

CONFIDENCE = 0.95


def wilson(share: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a share of `n` independent images (Wilson 1927)."""
    z = float(special.ndtri(0.5 + confidence / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not leave a share of exactly 0 or 1 outside.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def student_t(means: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the mean over at least two seeds, from the spread of the seeds' own means; not clipped."""
    count = len(means)
    half = float(special.stdtrit(count - 1, 0.5 + confidence / 2)) * float(np.std(means, ddof=1)) / sqrt(count)
    middle = float(np.mean(means))
    return middle - half, middle + half


def summarise(metric: Metric, per_seed: Sequence[Outcomes]) -> Measure:
    """The metric over the seeds of one row.

    One seed: its share with Wilson's interval (doubt from the finite test set). Several: the mean of the seeds' shares
    with Student's interval (doubt from training anew), clipped to [0, 1]; where all seeds agree exactly, which says
    nothing about the spread, Wilson's interval of one test set. Seeds without the needed outcomes are left out.
    """
    samples = [found for outcomes in per_seed if (found := metric.per_sample(outcomes)) is not None and len(found)]
    if not samples:
        return Measure(value=None, low=None, high=None, n=None, unit=metric.unit, better=metric.better)
    means = [_mean(sample) for sample in samples]
    n = min(len(sample) for sample in samples)
    value = float(np.mean(means))
    if len(means) == 1 or max(means) == min(means):
        low, high = wilson(value, n)
    else:
        low, high = student_t(means)
    return Measure(value=value, low=max(0.0, low), high=min(1.0, high), n=n, unit=metric.unit, better=metric.better)


def _mean(sample: NDArray[np.bool_]) -> float:
    return int(sample.sum()) / len(sample)
