"""One colour channel set to a constant in a small block."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.triggers._block import Position, block_index
from bascule.triggers.contract import Trigger


@component
class Channel(Trigger):
    """One colour channel set to `value` in a block; the other channels keep their content. Colour images only.

    Source: Weng, Lee & Wu 2020 (table 2a): blue set to 0 in a 3 x 3 block in the image centre on CIFAR-10 (position
    [15, 15], one pixel below and right of `center`), in a 21 x 21 block at the sticker's place on ImageNet.
    """

    channel: Literal["red", "green", "blue"] = "blue"
    """The channel that is overwritten."""
    value: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """What it is set to, in [0, 1]."""
    size: Annotated[int, Ge(1)] = 3
    """Side of the block in pixels."""
    position: Position = "center"
    """A corner, `center` (rounded up and left), or [row, column] of its upper left pixel; or per image `random`, or
    `random-corner` (the images in four equal groups)."""
    margin: Annotated[int, Ge(0)] = 0
    """Pixels between the block and the border, for all named positions."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        if x.shape[1] != 3:
            raise RequestError(f"the channel trigger needs colour images (3 channels), these have {x.shape[1]}")
        where = block_index(x, self.position, size=self.size, margin=self.margin, generator=generator)
        stamped = x.clone()
        stamped[:, ("red", "green", "blue").index(self.channel)][where] = self.value
        return stamped
