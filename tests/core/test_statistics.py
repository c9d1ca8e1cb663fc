"""Median and median absolute deviation, by hand and beside NumPy's and SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bascule.core.rng import stream
from bascule.core.statistics import deviations


def test_by_hand() -> None:
    # Median 3, distances 2 1 0 1 7, their median 1.
    median, distances, mad = deviations(torch.tensor([1.0, 2, 3, 4, 10]))
    assert (median.item(), distances.tolist(), mad.item()) == (3.0, [2.0, 1, 0, 1, 7], 1.0)


def test_of_two_middle_values_the_mean() -> None:
    # Median 2.5, distances 1.5 0.5 0.5 5.5, whose middle two are 0.5 and 1.5.
    median, _, mad = deviations(torch.tensor([1.0, 2, 3, 8]))
    assert (median.item(), mad.item()) == (2.5, 1.0)


@pytest.mark.parametrize("count", [1, 2, 30, 31])
def test_columns_are_apart(count: int) -> None:
    values = torch.randn(count, 4, 2, generator=stream(0, "values"))
    median, distances, mad = deviations(values)
    assert distances.shape == values.shape
    assert torch.allclose(median, torch.from_numpy(np.median(values.numpy(), axis=0)))
    assert torch.allclose(mad, torch.from_numpy(stats.median_abs_deviation(values.numpy(), axis=0)))


def test_what_is_not_a_number_is_left_out() -> None:
    values = torch.tensor([[4.0, math.nan], [math.nan, math.nan], [1.0, math.nan], [2.0, math.nan], [9.0, math.nan]])
    median, distances, mad = deviations(values)
    assert median[0] == 3
    assert mad[0] == 1.5
    assert torch.equal(distances[:, 0].isnan(), values[:, 0].isnan())
    assert median[1].isnan()
