"""Two clusters in the images of one class: what activation clustering and the two-component test have in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from bascule.core.projection import whole_number

LEAST = 10
"""Classes of fewer images are not split."""


class TwoClusters(NamedTuple):
    """Two clusters of N points."""

    second: Tensor
    """bool, shape (N,): in the cluster that is not the larger one."""
    leaning: Tensor
    """Floats in [-1, 1], shape (N,): (d1 - d2) / (d1 + d2) for the distances to the larger and the smaller centre;
    positive exactly for members of the second cluster."""
    share: float
    """Share of the second cluster, at most a half."""
    explained: float
    """Mean squared distance to the mean, minus that to the own centre."""


def split(points: Tensor, *, generator: torch.Generator) -> TwoClusters:
    """k-means with k = 2, the best of ten starts (scikit-learn, on the CPU).

    Args:
        points: N x k, not all equal.
        generator: Draws the starts.
    """
    values = points.double().cpu()
    method = KMeans(n_clusters=2, n_init=10, random_state=whole_number(generator=generator)).fit(values.numpy())
    centers = torch.from_numpy(method.cluster_centers_)
    distances = torch.cdist(values, centers, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.argmin(1)
    smaller = int(nearest.double().mean() <= 0.5)  # 1 when cluster 1 is no larger than cluster 0
    near, far = distances[:, smaller], distances[:, 1 - smaller]
    second = nearest == smaller
    leaning = ((far - near) / (far + near).clamp_min(1e-30)).float()
    explained = (values - values.mean(0)).square().sum(1).mean() - distances.amin(1).square().mean()
    return TwoClusters(
        second.to(points.device), leaning.to(points.device), float(second.double().mean()), float(explained)
    )
