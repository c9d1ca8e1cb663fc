"""Pictures of where a model puts the images of a class: projections of their features to two numbers each."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.optional import import_optional
from bascule.core.projection import Matrix, Rows, components, whole_number
from bascule.explanations.contract import Projection

_UMAP_WIDTH = 50


@component
class Latents(Projection):
    """Projection of feature vectors, usually those of one class, to the plane: figure 5 of Weng, Lee & Wu 2020.

    `ica`: two independent components (FastICA, the study's), uncorrelated and of variance 1. `pca`: the two principal
    coordinates, in the features' unit. `umap`: UMAP (McInnes et al. 2018) of the first 50 principal coordinates; needs
    the extra `bascule[umap]`. Components of `ica` come in order of their excess kurtosis, the most peaked first, and
    point to their longer tail, so that the picture does not depend on the draw.
    """

    method: Literal["ica", "pca", "umap"] = "ica"
    """How the plane is chosen."""

    def project(self, rows: Rows | Tensor, *, generator: torch.Generator) -> NDArray[np.float32]:
        if isinstance(rows, Tensor):
            rows = Matrix(rows.float())
        if self.method == "umap":
            _, coordinates = components(rows, _UMAP_WIDTH, method="pca", generator=generator)
            return _umap(coordinates.cpu().numpy(), whole_number(generator=generator))
        _, coordinates = components(rows, 2, method=self.method, generator=generator)
        points = coordinates.cpu().numpy()
        if self.method == "ica":
            points = _arranged(points)
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))).astype(np.float32)


def _arranged(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns of mean 0 and variance 1: the most peaked first, each with its longer tail towards positive numbers."""
    third, fourth = (points.astype(np.float64) ** power for power in (3, 4))
    order = np.argsort(-fourth.mean(0), kind="stable")
    return (points * np.where(third.mean(0) < 0, -1, 1))[:, order]


def _umap(points: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    umap = import_optional("umap", extra="umap")
    return np.asarray(umap.UMAP(n_components=2, random_state=seed, n_jobs=1).fit_transform(points), dtype=np.float32)
