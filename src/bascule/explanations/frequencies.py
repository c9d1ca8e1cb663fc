"""Spatial frequencies of images: their plane, rings in it, and its basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def radius(height: int, width: int) -> Tensor:
    """Distance from zero of each entry of a two-dimensional Fourier transform, in cycles per pixel: H x W, float64."""
    vertical = torch.fft.fftfreq(height, dtype=torch.float64)
    horizontal = torch.fft.fftfreq(width, dtype=torch.float64)
    return torch.hypot(vertical.unsqueeze(1), horizontal)


def rings(height: int, width: int) -> Tensor:
    """The ring each entry of a Fourier transform lies in: int64, H x W.

    Ring r holds the distances nearest to r cycles over the longer side. Ring 0 is the mean alone.
    """
    return (radius(height, width) * max(height, width)).round().long()


def half_plane(height: int, width: int, *, stride: int) -> Tensor:
    """One of each pair of opposite frequencies, every `stride`-th along both axes: int64 cycles per image, F x 2.

    Real images hold both of a pair in equal measure.
    """
    vertical = torch.arange(-(height // 2), (height + 1) // 2)
    horizontal = torch.arange(0, width // 2 + 1)
    vertical, horizontal = vertical[vertical % stride == 0], horizontal[horizontal % stride == 0]
    pairs = torch.cartesian_prod(vertical, horizontal)
    own_column = (pairs[:, 1] == 0) | (2 * pairs[:, 1] == width)  # holds both of each pair but its own opposites
    return pairs[~own_column | (pairs[:, 0] >= 0) | (2 * pairs[:, 0] == -height)]


def waves(frequencies: Tensor, height: int, width: int) -> Tensor:
    """Cosine waves of L2 norm 1, float64, F x H x W, from int64 cycles per image, F x 2: orthogonal on a half plane."""
    rows = torch.arange(height).reshape(-1, 1) * width
    columns = torch.arange(width).reshape(1, -1) * height
    # Whole numbers, so that a full turn is one.
    turns = (frequencies[:, 0].reshape(-1, 1, 1) * rows + frequencies[:, 1].reshape(-1, 1, 1) * columns) % (
        height * width
    )
    cosines = torch.cos(turns.double() * (2 * math.pi / (height * width)))
    return cosines / cosines.flatten(1).norm(dim=1).reshape(-1, 1, 1)
