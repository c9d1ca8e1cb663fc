"""Motions: images turned and shifted a little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.threat import Threat

PARAMETERS = 3
"""Numbers that describe a motion: the angle in degrees, clockwise, and the pixels downwards and to the right."""


@dataclass(frozen=True, kw_only=True)
class Motions(Threat):
    """An image turned around its middle, then shifted; what comes in from outside is black.

    Pixels between those of the image are interpolated linearly in both directions (Engstrom et al. 2019, section 4).
    """

    degrees: float
    """Largest angle, either way."""
    pixels: float
    """Largest shift along each of the two axes, either way."""

    @property
    def words(self) -> str:
        return f"turned by up to {self.degrees:g} degrees, shifted by up to {self.pixels:g} pixels"

    def check_size(self, size: Sequence[int]) -> None:
        height, width = size[1:]
        if self.pixels >= min(height, width):
            raise RequestError(
                f"shifts by up to {self.pixels:g} pixels push images of {height} x {width} out of sight; give less "
                f"than {min(height, width)}, for example {max(1, min(height, width) // 10)}",
                place=("pixels",),
            )

    def limits(self, like: Tensor) -> Tensor:
        """Largest size of each parameter, shape (3,), on the device and of the type of `like`."""
        return torch.tensor([self.degrees, self.pixels, self.pixels], dtype=like.dtype, device=like.device)

    def realise(self, proposal: Tensor, origin: Tensor) -> Tensor:
        limits = self.limits(origin)
        motion = torch.where(proposal.isfinite(), proposal, 0).to(origin).clamp(-limits, limits)
        # Interpolation at the pixels themselves rounds: what does not move stays to the bit.
        still = (motion == 0).all(1).reshape(-1, 1, 1, 1)
        return torch.where(still, origin, _moved(origin, motion))


def _moved(x: Tensor, motion: Tensor) -> Tensor:
    """Where each pixel of the result comes from: turned back what was shifted back, in units of half a side."""
    height, width = x.shape[2:]
    angle, down, right = (motion[:, 0] * math.pi / 180, 2 / height * motion[:, 1], 2 / width * motion[:, 2])
    cos, sin = angle.cos(), angle.sin()
    across, along = sin * (height / width), sin * (width / height)
    rows = [cos, across, -cos * right - across * down, -along, cos, along * right - cos * down]
    grid = F.affine_grid(torch.stack(rows, 1).reshape(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp_(0, 1)
