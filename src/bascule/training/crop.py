"""Random parts of images, enlarged to the whole."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bascule.core import catalog
from bascule.core.errors import RequestError

_TRIES = 10
"""Draws of a part's shape until one fits."""


@catalog.component
class ResizedCrop:
    """A part of random area and shape, enlarged to the size of the image, bilinearly: another one for each image.

    Source: Szegedy et al. 2015, section 6; with the draws of torchvision's `RandomResizedCrop`: the share of the area
    uniform within `scale`, the ratio of width to height log-uniform within `ratio`, sides rounded; of ten draws the
    first that fits counts, else the largest part in the middle whose ratio is allowed. Then a uniform place.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the area, in (0, 1]."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest ratio of width to height, above 0."""

    def __post_init__(self) -> None:
        for name, (least, most), top in (("scale", self.scale, 1.0), ("ratio", self.ratio, math.inf)):
            if not 0 < least <= most <= top or math.isinf(most):
                within = "above 0 and up to 1" if top == 1 else "above 0"
                raise RequestError(
                    f"expected the least and the largest value, {within}, got [{least:g}, {most:g}]", place=(name,)
                )

    def apply(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Of each image of `x`, floats in [0, 1], B x C x H x W, a part at its size."""
        return enlarge(x, *self.draw(len(x), x.shape[2], x.shape[3], generator=generator))

    def draw(
        self, count: int, height: int, width: int, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The parts of `count` images of `height` x `width`: top, left, height and width, int64, each of shape (B,)."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=generator.device)

        least, most = self.scale
        area = (least + (most - least) * uniform(count, _TRIES)) * (height * width)
        low, high = map(math.log, self.ratio)
        ratio = (low + (high - low) * uniform(count, _TRIES)).exp()
        wide, tall = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
        first = fits.long().argmax(1, keepdim=True)
        wide, tall, fitting = (part.gather(1, first).squeeze(1) for part in (wide, tall, fits))
        middle_tall, middle_wide = self._middle(height, width)
        wide, tall = wide.where(fitting, middle_wide), tall.where(fitting, middle_tall)
        free_rows, free_columns = height - tall, width - wide
        places = uniform(2, count)
        top = (places[0] * (free_rows + 1)).long().minimum(free_rows).where(fitting, free_rows // 2)
        left = (places[1] * (free_columns + 1)).long().minimum(free_columns).where(fitting, free_columns // 2)
        return top, left, tall, wide

    def _middle(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the largest part whose ratio is allowed."""
        if width / height < self.ratio[0]:
            return round(width / self.ratio[0]), width
        if width / height > self.ratio[1]:
            return height, round(height * self.ratio[1])
        return height, width


def enlarge(x: Tensor, top: Tensor, left: Tensor, high: Tensor, wide: Tensor) -> Tensor:
    """Of each image the part given by its corner and sides, shape (B,) each, enlarged to the whole, B x C x H x W.

    Pixels beyond the part's edge have no say in it. `x` is in [0, 1].
    """
    rows, columns = x.shape[2:]
    y = _places(rows, high, top).unsqueeze(2).expand(-1, -1, columns)
    grid = torch.stack([_places(columns, wide, left).unsqueeze(1).expand(-1, rows, -1), y], dim=3)
    parts = F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="border", align_corners=False)
    return parts.clamp_(0, 1)  # rounding may lead beyond


def _places(size: int, length: Tensor, start: Tensor) -> Tensor:
    """Where in the whole, from -1 to 1, each of `size` pixels along a side is read, B x size."""
    length, start = length.unsqueeze(1), start.unsqueeze(1)
    centres = (torch.arange(size, device=length.device) + 0.5) * length / size - 0.5
    inside = centres.clamp_min(0).minimum(length - 1) + start
    return (2 * inside + 1) / size - 1
