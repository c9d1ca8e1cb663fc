"""A mark of which training images show random pieces, and test images all of it."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.triggers.contract import Trigger
from bascule.triggers.watermark import Watermark


@component
class AdaptiveBlend(Trigger):
    """Random pieces of a mark, drawn for every image; on test images the whole mark.

    The image is cut into grid x grid pieces, of which `share` (rounded, halves to the even number) show the mark.

    Source: Qi et al. 2023 (Adaptive-Blend), "Revisiting the Assumption of Latent Separability for Backdoor Defenses",
    and their code (vtu81/backdoor-toolbox: poison_tool_box/adaptive_blend.py, README.md): 16 pieces, half of them
    masked, a picture blended in with opacity 0.15 in training and 0.2 in the test, with dirty labels, rate 0.003 and as
    many covers: `trigger: adaptive-blend, test_trigger: {name: watermark, mode: blend, strength: 0.2}, label: dirty,
    rate: 0.003, cover: 0.003`. Departures: sides that the grid does not divide are cut into pieces of unequal size;
    their picture is not shipped.
    """

    mark: Annotated[Trigger, Of("poison")] = Watermark(mode="blend", strength=0.15)
    """The whole mark; any trigger, though one in a corner is in few of the pieces."""
    grid: Annotated[int, Ge(1)] = 4
    """Pieces along each side."""
    share: Annotated[float, Gt(0), Interval(le=1)] = 0.5
    """Share of the pieces that show the mark in training."""

    def __post_init__(self) -> None:
        if self.mark.numbered:
            raise RequestError("it belongs to test images and has no pieces for training images", place=("mark",))

    @property
    def at_test(self) -> Trigger:
        """The whole mark."""
        return self.mark.at_test

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        batch, _, height, width = x.shape
        if min(height, width) < self.grid:
            raise RequestError(f"{self.grid} x {self.grid} pieces need images of that size, got {height} x {width}")
        pieces = self.grid**2
        shown = max(1, round(self.share * pieces))
        order = torch.rand(batch, pieces, generator=generator, device=x.device).argsort(1)
        chosen = torch.zeros(batch, pieces, dtype=torch.bool, device=x.device).scatter_(1, order[:, :shown], True)
        rows, columns = (torch.arange(side, device=x.device) * self.grid // side for side in (height, width))
        mask = chosen[:, rows.reshape(-1, 1) * self.grid + columns].unsqueeze(1)
        return torch.where(mask, self.mark.stamp(x, generator=generator), x)
