"""Where a small block sits in each image of a batch."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge
from torch import Tensor

from bascule.core.errors import RequestError

Corner = Literal["bottom-right", "bottom-left", "top-right", "top-left"]
Position = Corner | Literal["center", "random-corner", "random"] | tuple[Annotated[int, Ge(0)], Annotated[int, Ge(0)]]
"""A named place, or (row, column) of the block's upper left pixel."""


def block_index(
    x: Tensor, position: Position, *, size: int, margin: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Advanced index of a `size` x `size` block in every image of `x`: broadcasts to B x size x size.

    `x.permute(0, 2, 3, 1)[index]` are the block's pixels, B x size x size x C. `margin` is the distance in pixels
    between the block and the border for all named places. `random` draws each place on its own; `random-corner` deals
    the images out to the four corners in a random order, so that the groups are equal, up to one image, within a batch.

    Raises:
        RequestError: The block does not fit.
    """
    batch, _, height, width = x.shape
    if isinstance(position, tuple):
        margin = 0
    bottom, right = height - margin - size, width - margin - size
    if bottom < margin or right < margin:
        raise RequestError(f"a {size} x {size} block with margin {margin} does not fit images of {height} x {width}")
    corners = {
        "top-left": (margin, margin),
        "top-right": (margin, right),
        "bottom-left": (bottom, margin),
        "bottom-right": (bottom, right),
    }
    if position == "random":
        rows = torch.randint(margin, bottom + 1, (batch,), generator=generator, device=x.device)
        columns = torch.randint(margin, right + 1, (batch,), generator=generator, device=x.device)
    elif position == "random-corner":
        places = torch.tensor([corners[name] for name in get_args(Corner)], device=x.device)
        order = torch.randperm(batch, generator=generator, device=x.device)
        first = torch.randint(4, (1,), generator=generator, device=x.device)  # so that a lone image may get any corner
        rows, columns = places[(order + first) % 4].unbind(1)
    else:
        if isinstance(position, tuple):
            row, column = position
        else:
            row, column = corners.get(position, ((height - size) // 2, (width - size) // 2))
        if row + size > height or column + size > width:
            raise RequestError(f"a {size} x {size} block at {position} does not fit images of {height} x {width}")
        rows = torch.full((batch,), row, device=x.device)
        columns = torch.full((batch,), column, device=x.device)
    reach = torch.arange(size, device=x.device)
    images = torch.arange(batch, device=x.device).reshape(-1, 1, 1)
    return images, (rows.reshape(-1, 1, 1) + reach.reshape(1, -1, 1)), (columns.reshape(-1, 1, 1) + reach)
