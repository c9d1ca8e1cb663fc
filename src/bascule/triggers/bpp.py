"""Fewer colours, with dithering."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from bascule.core.catalog import component
from bascule.triggers.contract import Trigger


@component
class Bpp(Trigger):
    """Each channel rounded to a few levels, the error handed on to the neighbours (Floyd & Steinberg 1976).

    The levels are k / (levels - 1). Going along the rows, each pixel takes the nearest one, halves the even one, and
    its error goes on: 7/16 to the right, 3/16 below left, 5/16 below, 1/16 below right; what would leave the image is
    lost. An image that has no other colours stays as it is: black, for one.

    Source: Wang, Zhai & Ma 2022 (BppAttack, section 3.2) and their code (RU-System-Software-and-Security/BppAttack:
    bppattack.py, config.py): 8 levels, a bit depth of 3. Departures: their attacker is the one who trains. Fresh images
    are stamped in every batch (a fifth of each), as many others get the rounding errors of another image and keep their
    label, and the images are shifted and turned; this is a fixed poisoned set, without such negatives, which teaches
    less: on MNIST, where most pixels are black or white, it takes 2 levels (docs/guide/poison.md has figures). They
    dither if asked to.
    """

    levels: Annotated[int, Interval(ge=2, le=128)] = 8
    """Levels per channel: 2^d for a bit depth of d; `squeeze_num` in their code."""
    dither: bool = True
    """Hand the errors on, so that the means over small regions are kept; else each pixel is only rounded."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        # In float64 whatever the type of x: ties are many, and must fall the same way everywhere.
        scaled = x.to(torch.float64) * (self.levels - 1)
        rounded = _dithered(scaled) if self.dither else scaled.round_()
        return rounded.div_(self.levels - 1).clamp_(0, 1).to(x)


def _dithered(x: Tensor) -> Tensor:
    """Whole numbers with the errors handed on, B x C x H x W.

    A pixel waits for its left neighbour and three above it, so all those with the same column + 2 * row go at once; the
    errors reach a pixel in the order in which they would one pixel after another.
    """
    height, width = x.shape[2:]
    work = torch.nn.functional.pad(x, (1, 1, 0, 1))  # the frame takes what leaves the image
    for step in range(width + 2 * (height - 1)):
        first, last = max(0, (step - width + 2) // 2), min(height - 1, step // 2)
        row = torch.arange(first, last + 1, device=x.device)
        column = step - 2 * row + 1
        old = work[:, :, row, column]
        new = old.round()
        work[:, :, row, column] = new
        error = old - new
        for down, right, share in ((1, 1, 1), (1, 0, 5), (1, -1, 3), (0, 1, 7)):
            work[:, :, row + down, column + right] += error * (share / 16)
    return work[:, :, :height, 1 : width + 1]
