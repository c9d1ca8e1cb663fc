"""Median and median absolute deviation, by hand and beside SciPy's."""

from __future__ import annotations

import torch
from scipy import stats

from bascule.core.rng import stream
from bascule.core.statistics import deviations


def test_by_hand() -> None:
    # Median 3, distances 2 1 0 1 7, their median 1.
    median, distances, mad = deviations(torch.tensor([1.0, 2, 3, 4, 10]))
    assert (median.item(), distances.tolist(), mad.item()) == (3.0, [2.0, 1, 0, 1, 7], 1.0)


def test_of_two_middle_values_the_lower() -> None:
    # Median 2, distances 1 0 1 6, of which the lower middle one is 1.
    median, _, mad = deviations(torch.tensor([1.0, 2, 3, 8]))
    assert (median.item(), mad.item()) == (2.0, 1.0)


def test_columns_are_apart() -> None:
    values = torch.randn(31, 4, 2, generator=stream(0, "values"))
    median, distances, mad = deviations(values)
    assert distances.shape == values.shape
    wanted = torch.from_numpy(stats.median_abs_deviation(values.numpy(), axis=0))
    assert torch.allclose(mad, wanted)
    assert torch.equal(median[1, 1], values[:, 1, 1].sort().values[15])
