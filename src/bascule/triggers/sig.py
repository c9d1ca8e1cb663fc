"""A sinusoidal signal over the whole image."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt, Interval
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.triggers.contract import Trigger

_VISIBLE = 0.5 / 255
"""A weaker signal is rounded away when the image is stored."""


@component
class Sig(Trigger):
    """A sine wave added to all channels, then clipped: x + delta * sin(2 pi * column * frequency / width).

    Source: Barni, Kallas & Tondi 2019 (SIG), a clean-label attack, frequency 6; a weaker delta in training than in the
    test is a `test_trigger`. Departure: columns are counted from 0, not 1.
    """

    delta: Annotated[float, Interval(gt=0, le=1)] = 40 / 255
    """Amplitude, in [0, 1] pixel units."""
    frequency: Annotated[float, Gt(0)] = 6.0
    """Periods over the whole image; above half its pixels the wave is seen as a slower one."""
    direction: Literal["horizontal", "vertical"] = "horizontal"
    """The way the wave runs: `horizontal` gives vertical stripes, the same in every row."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        count = x.shape[3] if self.direction == "horizontal" else x.shape[2]
        places = torch.arange(count, dtype=torch.float64) / count
        wave = self.delta * torch.sin(2 * torch.pi * self.frequency * places)
        if wave.abs().max() < _VISIBLE:
            raise RequestError(
                f"a wave of frequency {self.frequency:g} and delta {self.delta:g} is nowhere seen on images of "
                f"{x.shape[2]} x {x.shape[3]}: raise delta, or take another frequency"
            )
        return (x + wave.to(x).reshape((1, -1) if self.direction == "horizontal" else (-1, 1))).clamp_(0, 1)
