"""A small opaque patch: a plain square, a checkerboard, or a picture with transparency."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.text import count
from bascule.triggers._block import Position, block_index
from bascule.triggers.contract import Trigger
from bascule.triggers.pictures import picture_digest, read_picture

Level = Annotated[float, Interval(ge=0, le=1)]


@component
class Sticker(Trigger):
    """A square patch pasted over the image.

    Sources: Gu et al. 2019 (BadNets); as the clean-label sticker of Weng, Lee & Wu 2020 (section 4): 3 x 3, white on
    MNIST, checkerboard with margin 2 on CIFAR-10, a picture on ImageNet. Departure: a picture's transparent parts are
    see-through; their code makes them black, and every channel value of 0 see-through.
    """

    size: Annotated[int, Ge(1)] = 3
    """Side of the patch in pixels."""
    position: Position = "bottom-right"
    """A corner, `center` (rounded up and left), or [row, column] of its upper left pixel; or per image `random`, or
    `random-corner` (the images in four equal groups)."""
    margin: Annotated[int, Ge(0)] = 0
    """Pixels between the patch and the border, for all named positions."""
    pattern: Literal["solid", "checker", "coarse-checker"] = "solid"
    """`checker` alternates `color` (upper left and every second pixel) with black; `coarse-checker` does so in blocks
    of two by two pixels, cut off at the right and below where the size is odd."""
    color: Level | tuple[Level, Level, Level] = 1.0
    """Grey level, or red, green and blue, in [0, 1]."""
    picture: str | None = None
    """A picture file to paste instead, scaled to `size`; its transparency is kept."""
    picture_sha256: str | None = None
    """Filled in from the file."""

    def __post_init__(self) -> None:
        if self.picture is not None:
            object.__setattr__(self, "picture_sha256", picture_digest(self.picture, self.picture_sha256))

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        where = block_index(x, self.position, size=self.size, margin=self.margin, generator=generator)
        patch, opacity = (part.to(x) for part in self._patch(channels=x.shape[1]))
        stamped = x.clone()
        view = stamped.permute(0, 2, 3, 1)
        patch, opacity = patch.permute(1, 2, 0), opacity.permute(1, 2, 0)
        view[where] = view[where] * (1 - opacity) + patch * opacity
        return stamped

    def _patch(self, channels: int) -> tuple[Tensor, Tensor]:
        """The patch, C x size x size, and its opacity, 1 x size x size."""
        if self.picture is not None:
            return read_picture(self.picture, channels=channels, height=self.size, width=self.size)
        color = self.color if isinstance(self.color, tuple) else (self.color,) * channels
        if len(color) != channels:
            raise RequestError(f"color {self.color} has {count(len(color), 'channel')}, the images have {channels}")
        patch = torch.tensor(color).reshape(-1, 1, 1).expand(-1, self.size, self.size).clone()
        if self.pattern != "solid":
            grid = torch.arange(self.size) // (1 if self.pattern == "checker" else 2)
            patch *= (grid.reshape(-1, 1) + grid + 1) % 2
        return patch, torch.ones(1, self.size, self.size)
