"""How far an input lies from clean images in a layer of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.features import Features, features
from bascule.core.images import Images
from bascule.detectors.contract import Detector, Prepared


@component
class LatentDistance(Detector):
    """Distance to the defender's images in one layer: a baseline that knows nothing of triggers or perturbations.

    `neighbours`: distance to the `k`-th nearest of them once all vectors are scaled to length one (Sun et al. 2022);
    between 0 and 2. `mahalanobis`: least squared Mahalanobis distance to the mean of a class, with one covariance for
    all classes (Lee et al. 2018); 0 and more.

    Defaults: Sun et al. take the 50th of 50,000 images of CIFAR-10 and the 1,000th of 1.28 million of ImageNet, about
    one in a thousand; of the few hundred that a defender has, that is the first.

    Departures: the images are the defender's, not the training set. Lee et al. average several layers over positions,
    weigh them by a regression on known attacks, and push each input by a small step first; here it is one layer as it
    is, without a step. An attacker gets the gradient as it is.
    """

    distance: Literal["neighbours", "mahalanobis"] = "neighbours"
    """To the `k`-th nearest image, or to the nearest class."""
    k: Annotated[int, Ge(1)] = 1
    """Which of the nearest images counts (`neighbours`); the farthest where there are fewer."""
    layer: str | None = None
    """Module whose output is looked at, named as in the model (`group3.1`); by default the input of the last linear
    layer. Maps are flattened."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        features(model, images, layer=self.layer)

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        known = features(model, images, layer=self.layer)
        distance = self._to_neighbours(known) if self.distance == "neighbours" else _to_classes(known)
        return Prepared(suspicion=lambda x: distance(known.of(x)))

    def _to_neighbours(self, known: Features) -> Callable[[Tensor], Tensor]:
        points = F.normalize(known.matrix(), dim=1)
        place = min(self.k, len(points))

        def distance(vectors: Tensor) -> Tensor:
            nearest = _distances(F.normalize(vectors, dim=1), points).topk(place, dim=1, largest=False)
            return nearest.values[:, -1]

        return distance


def _distances(vectors: Tensor, points: Tensor) -> Tensor:
    """Euclidean, B x N; through no matrix product, whose rounding would depend on the batch and shows in small ones."""
    return torch.cdist(vectors, points, compute_mode="donot_use_mm_for_euclid_dist")


def _to_classes(known: Features) -> Callable[[Tensor], Tensor]:
    """Least squared Mahalanobis distance to a class that occurs."""
    rows = known.matrix().double()
    means = torch.stack([rows[index].mean(0) for _, index, _ in known.by_class()])
    within = torch.cat([rows[index] - rows[index].mean(0) for _, index, _ in known.by_class()])
    inverse = torch.linalg.pinv(within.T @ within / len(within), hermitian=True)

    def distance(vectors: Tensor) -> Tensor:
        away = vectors.double().unsqueeze(1) - means
        squares: Tensor = torch.einsum("bkd,de,bke->bk", away, inverse, away)
        return squares.amin(1).float()

    return distance
