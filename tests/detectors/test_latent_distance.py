"""Distances in a layer against scikit-learn, by which the methods' authors or their code compute them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.features import features
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.detectors.latent_distance import LatentDistance


class Pixels(nn.Module):
    """A model whose features are its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


def said(detector: LatentDistance, model: nn.Module, images: Images, x: Tensor) -> Tensor:
    return detector.prepare(model.eval(), images, generator=stream(0, "a")).suspicion(x).detach()


def test_by_hand(vectors: Callable[..., Images]) -> None:
    """Directions of right angles lie the root of two apart, whatever the lengths; the second nearest counts."""
    images = vectors(torch.tensor([[255, 0], [0, 51], [0, 102]]), torch.tensor([0, 1, 1]), 2)
    x = torch.tensor([[0.2, 0.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    assert said(LatentDistance(k=1), Pixels(), images, x).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert said(LatentDistance(k=2), Pixels(), images, x).tolist() == pytest.approx([2**0.5, 0], abs=1e-6)
    assert said(LatentDistance(k=99), Pixels(), images, x).tolist() == pytest.approx([2**0.5, 2**0.5], abs=1e-6)


def test_mahalanobis_by_hand(vectors: Callable[..., Images]) -> None:
    """Class means (0.2, 0.2) and (0.8, 0.8); within them a variance of 0.04 and 0.01 and no covariance."""
    rows = torch.tensor([[0, 0.1], [0.4, 0.3], [0, 0.3], [0.4, 0.1], [0.6, 0.7], [1, 0.9], [0.6, 0.9], [1, 0.7]])
    images = vectors((255 * rows).round(), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 3)
    x = torch.tensor([[0.2, 0.2], [0.4, 0.2], [0.8, 0.6]]).reshape(3, 1, 1, 2)
    found = said(LatentDistance(distance="mahalanobis"), Pixels(), images, x)
    assert found.tolist() == pytest.approx([0, 0.2**2 / 0.04, 0.2**2 / 0.01], rel=0.03, abs=0.01)


@pytest.mark.parametrize("k", [1, 7, 50])
def test_the_neighbours_of_the_authors_code(backdoored, k: int) -> None:
    """run_cifar.py of deeplearning-wisc/knn-ood: length one, then the K-th distance (theirs is squared, by faiss)."""
    known = features(backdoored.model, backdoored.known).matrix().numpy()
    new = features(backdoored.model, backdoored.known).of(backdoored.triggered[:30]).detach().numpy()
    unit = [part / (np.linalg.norm(part, ord=2, axis=-1, keepdims=True) + 1e-10) for part in (known, new)]
    distances, _ = NearestNeighbors(n_neighbors=k).fit(unit[0]).kneighbors(unit[1])
    found = said(LatentDistance(k=k), backdoored.model, backdoored.known, backdoored.triggered[:30])
    assert np.allclose(found.numpy(), distances[:, -1], atol=1e-5)


def test_the_mahalanobis_distance_of_the_authors_code(backdoored) -> None:
    """lib_generation.py of pokaxpoka/deep_Mahalanobis_detector: precision of all vectors less their class's mean."""
    known = features(backdoored.model, backdoored.known)
    rows, labels = known.matrix().double().numpy(), backdoored.known.labels.numpy()
    means = np.stack([rows[labels == label].mean(0) for label in range(10)])
    precision = EmpiricalCovariance(assume_centered=False).fit(rows - means[labels]).precision_
    new = known.of(backdoored.triggered[:30]).detach().double().numpy()
    scores = np.stack([-0.5 * np.einsum("bd,de,be->b", new - mean, precision, new - mean) for mean in means])
    detector = LatentDistance(distance="mahalanobis")
    found = said(detector, backdoored.model, backdoored.known, backdoored.triggered[:30])
    assert np.allclose(found.numpy(), -2 * scores.max(0), rtol=1e-3)


def test_a_layer_may_be_named(backdoored) -> None:
    for name in ("neighbours", "mahalanobis"):
        detector = LatentDistance(distance=name, layer="layer3.0")  # type: ignore[arg-type]
        assert said(detector, backdoored.model, backdoored.known, backdoored.clean[:3]).isfinite().all()
    with pytest.raises(RequestError, match="no layer 'layer9'"):
        LatentDistance(layer="layer9").check_model(backdoored.model, backdoored.known)


def test_it_finds_triggered_images(backdoored) -> None:
    """Measured: AUROC 0.97, 0.79 to 0.95 for six other seeds and targets; Mahalanobis 1.00, 0.96 and more."""
    assert backdoored.auroc("latent-distance") > 0.75
    assert backdoored.auroc("latent-distance", distance="mahalanobis") > 0.85
