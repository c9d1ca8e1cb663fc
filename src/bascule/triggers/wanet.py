"""A smooth warp of the whole image."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from bascule.core import rng
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.triggers.contract import Trigger


@component
class Wanet(Trigger):
    """The image seen through a fixed, smoothly uneven glass.

    Random shifts at grid x grid control points, scaled to mean absolute value 1, are interpolated bicubically to all
    pixels, multiplied by strength / 2 pixels, and the image is sampled there bilinearly, beyond the border at it. An
    image of one colour stays as it is.
    Source: Nguyen & Tran 2021 (WaNet, section 3), a dirty-label attack. Departures: height and width may differ; and
    their noise mode, in which further training images get a random warp and keep their true label, concerns who is
    stamped and not the trigger, so this is WaNet without it.
    """

    grid: Annotated[int, Ge(2)] = 4
    """Control points per side, k in the paper."""
    strength: Annotated[float, Gt(0)] = 0.5
    """s in the paper: the shift along each axis is strength / 2 pixels on average over the control points."""
    field: Annotated[int, Ge(0)] = 0
    """Number of the random warp: another number is another trigger. Does not depend on the seed of the run."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        batch, _, height, width = x.shape
        if height < 2 or width < 2:
            raise RequestError(f"wanet needs images of at least 2 x 2, got {height} x {width}")
        where = self._places(height, width).to(x).expand(batch, -1, -1, -1)
        return F.grid_sample(x, where, mode="bilinear", padding_mode="border", align_corners=True).clamp_(0, 1)

    def _places(self, height: int, width: int) -> Tensor:
        """Where each pixel is sampled, 1 x H x W x (column, row), -1 and 1 being the centres of the border pixels."""
        shape = (1, 2, self.grid, self.grid)
        points = torch.rand(shape, generator=rng.stream(self.field, "wanet"), dtype=torch.float64) * 2 - 1
        points /= points.abs().mean()
        shifts = F.interpolate(points, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        rows, columns = (torch.linspace(-1, 1, side, dtype=torch.float64) for side in (height, width))
        still = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        return (still + self.strength * shifts / torch.tensor([width, height])).clamp(-1, 1)
