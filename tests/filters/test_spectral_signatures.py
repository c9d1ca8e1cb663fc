"""Spectral signatures: the paper's formula in NumPy, ART on the same features, and a class worked out by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.filters.contract import Judged
from bascule.filters.run import run_filter
from bascule.filters.spectral_signatures import SpectralSignatures


@pytest.fixture
def run(vectors: Callable[..., Images], reader: Callable[..., nn.Module]) -> Callable[..., Judged]:
    def call(rows: Tensor, labels: Tensor, **settings: Any) -> Judged:
        net = reader(rows.shape[1], 2)
        return run_filter(net, SpectralSignatures(**settings), vectors(rows, labels, 2), generator=stream(0, "a"))

    return call


def test_a_class_by_hand(run: Any) -> None:
    # Mean (51, 0); all variation along the first pixel: distances 51, 51, 0, 0, 102 from it, in 255ths.
    rows = torch.tensor([[0, 0], [0, 0], [51, 0], [51, 0], [153, 0], [7, 7]])
    found = run(rows, torch.tensor([0, 0, 0, 0, 0, 1]), rate=0.2, factor=1.0)
    assert found.score.tolist() == pytest.approx([0.2, 0.2, 0, 0, 0.4, 0], abs=1e-6)
    assert found.removed.tolist() == [False, False, False, False, True, False]
    uncentred = run(rows, torch.tensor([0, 0, 0, 0, 0, 1]), rate=0.2, factor=1.0, centred=False)
    assert uncentred.score.tolist() == pytest.approx([0, 0, 0.2, 0.2, 0.6, 0], abs=1e-6)


def noisy(count: int, width: int) -> Tensor:
    rows = torch.randint(40, 120, (count, width), generator=stream(0, "rows"))
    rows[: count // 5, : width // 2] += 60
    return rows


def by_numpy(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(0)
    return np.abs(centred @ np.linalg.svd(centred, full_matrices=False)[2][0])


@pytest.mark.parametrize("width", [20, 600])
def test_scores_are_those_of_the_full_decomposition_class_by_class(run: Any, width: int) -> None:
    rows, labels = noisy(150, width), torch.arange(150) % 2
    found = run(rows, labels, rate=0.1)
    for label in (0, 1):
        own = labels == label
        wanted = by_numpy(rows[own].double().numpy() / 255)
        assert found.score[own].numpy() == pytest.approx(wanted, rel=1e-3, abs=1e-3 * wanted.max())
        # 1.5 x 0.1 x 75 images = 11.25.
        assert found.removed[own].sum() == 11
        assert found.score[own][found.removed[own]].min() >= found.score[own][~found.removed[own]].max()


@pytest.mark.parametrize("width", [20, 600])
def test_scores_are_those_of_art(run: Any, width: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = pytest.importorskip("art.defences.detector.poison.spectral_signature_defense")
    rows = noisy(100, width)
    theirs = detector.SpectralSignatureDefense.spectral_signature_scores(rows.double().numpy() / 255).squeeze(1)
    ours = run(rows, torch.zeros(100), centred=False).score.numpy()
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3 * theirs.max())
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99999


def test_the_tail_of_a_shifted_group_is_found(run: Any) -> None:
    rows = noisy(200, 30)
    found = run(rows, torch.zeros(200), rate=0.2, factor=1.0)
    assert found.removed.nonzero().squeeze(1).tolist() == list(range(40))


def test_whole_classes_are_not_removed() -> None:
    with pytest.raises(RequestError, match=r"factor 1\.5 x rate 0\.7 would remove whole classes"):
        build("filter", {"name": "spectral-signatures", "rate": 0.7})
