"""Statistics that a few outliers hardly move."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

CONSISTENCY = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


class Deviations(NamedTuple):
    """How values of each column lie around their median."""

    median: Tensor
    distances: Tensor
    """From the median, absolute, of the shape of the values; NaN where the value is."""
    mad: Tensor
    """Median absolute deviation: the median of the distances."""


def median_of(values: Tensor) -> Tensor:
    """The median of N values, or of each column of N x anything: of an even number the mean of the middle two.

    NaN are left out; a column of nothing else has the median NaN.
    """
    # torch gives the lower of two middle values, so of the negatives the upper one; `quantile` stops at 2^24 values.
    lower, upper = values.nanmedian(0).values, -(-values).nanmedian(0).values
    return (lower + upper) / 2


def deviations(values: Tensor) -> Deviations:
    """The deviations of N values, or of each column of N x anything; medians as in `median_of`."""
    median = median_of(values)
    distances = (values - median).abs()
    return Deviations(median, distances, median_of(distances))
