from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from bascule.core.rng import stream
from bascule.scanners.mm_bd import unlikeliness
from bascule.scanners.verdict import mad_index

NAN = float("nan")


def test_index_worked_by_hand() -> None:
    # Median 10; deviations 1, 0, 1, 2, 7 with median 1, so one step is 1.4826.
    found = mad_index(torch.tensor([9.0, 10.0, 11.0, 12.0, 3.0]))
    assert found.tolist() == pytest.approx([1 / 1.4826, 0, -1 / 1.4826, -2 / 1.4826, 7 / 1.4826])


def test_index_of_an_even_number_of_values() -> None:
    # Median 2.5, deviations 1.5, 0.5, 0.5, 1.5 with median 1.
    assert mad_index(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == pytest.approx(
        [1.5 / 1.4826, 0.5 / 1.4826, -0.5 / 1.4826, -1.5 / 1.4826]
    )


def test_index_as_published() -> None:
    # The authors' script: |norm - median| / (1.4826 * median of |norm - median|), small norms only.
    norms = torch.rand(43, generator=stream(0, "norms")).double() * 50 + 5
    values = norms.numpy()
    deviation = stats.median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(mad_index(norms).numpy(), (np.median(values) - values) / deviation, rtol=2e-4)


def test_unexamined_classes_are_left_out() -> None:
    found = mad_index(torch.tensor([9.0, NAN, 10.0, 11.0, 12.0, 3.0]))
    assert found[1].isnan()
    assert found[0] == pytest.approx(1 / 1.4826)


def test_equal_values_are_not_suspicious() -> None:
    assert mad_index(torch.full((5,), 7.0)).tolist() == [0] * 5
    # A thousandth less is rounding, a tenth less is not: steps of a hundredth.
    found = mad_index(torch.tensor([100.0, 100.0, 100.0, 99.9, 90.0]))
    assert found.tolist() == pytest.approx([0, 0, 0, 0.1, 10], abs=1e-4)
    assert mad_index(torch.zeros(4)).tolist() == [0] * 4


def test_a_median_that_is_only_a_bound() -> None:
    # Most classes need 100 or more: a class stands out below half of that, and 80 does not.
    values = torch.tensor([100.0, 100.0, 100.0, 80.0, 40.0])
    assert mad_index(values, largest=100.0).tolist() == pytest.approx([0, 0, 0, 0.8, 2.4])
    assert mad_index(values)[3] == pytest.approx(20)


def test_unlikeliness_as_scipys_gamma() -> None:
    margins = torch.tensor([3.0, 5.0, 4.0, 20.0, 6.0, 4.5]).double()
    others = np.array([3.0, 5.0, 4.0, 6.0, 4.5])
    null = stats.gamma(a=others.mean() ** 2 / others.var(ddof=1), scale=others.var(ddof=1) / others.mean())
    expected = -np.log10(1 - null.cdf(margins.numpy()) ** 6)
    found = unlikeliness(margins)
    np.testing.assert_allclose(found[[0, 1, 2, 4, 5]].numpy(), expected[[0, 1, 2, 4, 5]], rtol=1e-6, atol=1e-12)
    # Too far out for 1 - cdf: the survival function keeps its digits.
    assert float(found[3]) == pytest.approx(-np.log10(6 * null.sf(20.0)), rel=1e-6)


@pytest.mark.parametrize("margins", [[1.0, 1.0, 1.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.0], [1e-9, 2.0, 1e9], [5, 5, 6]])
def test_unlikeliness_is_finite(margins: list[float]) -> None:
    found = unlikeliness(torch.tensor(margins, dtype=torch.float32))
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.argmax() == torch.tensor(margins).argmax()
