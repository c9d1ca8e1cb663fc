"""Statistics that a few outliers hardly move."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

CONSISTENCY = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


class Deviations(NamedTuple):
    """How values of each column lie around their median. Of an even number the lower middle one is the median."""

    median: Tensor
    distances: Tensor
    """From the median, absolute, of the shape of the values."""
    mad: Tensor
    """Median absolute deviation: the median of the distances."""


def deviations(values: Tensor) -> Deviations:
    """The deviations of N values, or of each column of N x anything."""
    median = values.median(0).values
    distances = (values - median).abs()
    return Deviations(median, distances, distances.median(0).values)
