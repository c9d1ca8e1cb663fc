"""SPECTRE: the robust estimate against scikit-learn's, the QUE score against the formula, an end-to-end case."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from sklearn.covariance import MinCovDet
from torch import Tensor, nn

from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.filters.run import run_filter
from bascule.filters.spectre import Spectre, concentrate


def contaminated(count: int, width: int, share: float) -> Tensor:
    """Normal points of growing spread, of which the first `share` lie far off, close together."""
    rows = torch.randn(count, width, generator=stream(0, "rows"), dtype=torch.float64)
    rows *= torch.linspace(1, 4, width).double()
    bad = int(share * count)
    rows[:bad] = rows[:bad] * 0.3 + 12
    return rows


def test_outliers_do_not_move_the_estimate() -> None:
    rows = contaminated(800, 4, 0.15)
    location, covariance = concentrate(rows, 0.8)
    honest = rows[120:]
    assert location.tolist() == pytest.approx(honest.mean(0).tolist(), abs=0.4)
    assert torch.allclose(covariance.diagonal(), honest.var(0), rtol=0.35)
    assert (rows.mean(0) - honest.mean(0)).min() > 1.5  # the plain mean is far off


def test_the_estimate_is_the_minimum_covariance_determinant() -> None:
    rows = contaminated(800, 4, 0.15)
    location, covariance = concentrate(rows, 0.8)
    robust = MinCovDet(support_fraction=0.8, random_state=0).fit(rows.numpy())
    assert location.numpy() == pytest.approx(robust.raw_location_, abs=0.02)
    theirs = robust.raw_covariance_ / np.trace(robust.raw_covariance_)
    assert covariance.numpy() / covariance.trace().item() == pytest.approx(theirs, abs=0.02)


def test_the_que_score_is_the_papers_formula() -> None:
    points = torch.randn(300, 3, generator=stream(0, "rows"), dtype=torch.float64) * torch.tensor([1.0, 2.0, 1.2])
    score, mean = Spectre(alpha=4.0)._que(points)
    covariance = np.cov(points.numpy().T)
    weight = expm(4 * (covariance - np.eye(3)) / (np.linalg.norm(covariance, 2) - 1))
    weight /= np.trace(weight)
    wanted = np.einsum("ni,ij,nj->n", points.numpy(), weight, points.numpy())
    assert score.numpy() == pytest.approx(wanted, rel=1e-6)
    assert mean == pytest.approx(wanted.mean(), rel=1e-6)
    assert Spectre(alpha=0.0)._que(points)[0].tolist() == pytest.approx((points.square().sum(1) / 3).tolist())


def test_only_the_suspect_class_loses_images(vectors: Callable[..., Images], reader: Callable[..., nn.Module]) -> None:
    rows = torch.randint(80, 121, (400, 8), generator=stream(0, "rows"))
    rows[200:240, 3] += 70  # a fifth of class 1
    images = vectors(rows, torch.arange(2).repeat_interleave(200))
    found = run_filter(reader(8, 2), Spectre(rate=0.2, factor=1.0), images, generator=stream(0, "a"))
    assert found.removed.nonzero().squeeze(1).tolist() == list(range(200, 240))
    assert found.score[200:240].min() > found.score[240:].max()
    assert found.score[200:240].min() > found.score[:200].quantile(0.95)


def test_a_whole_class_is_not_removed() -> None:
    with pytest.raises(RequestError, match="would remove a whole class"):
        build("filter", {"name": "spectre", "rate": 0.4, "factor": 2.5})
