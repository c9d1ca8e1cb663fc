"""A small convolutional network for 8 x 8 digits."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import nn

from bascule.core.catalog import component
from bascule.models.contract import Architecture


@component
class DigitsCnn(Architecture):
    """Two 3 x 3 convolutions, the second with stride 2, and one hidden linear layer; no pooling, no normalisation."""

    width: Annotated[int, Ge(1)] = 32
    """Channels of the first convolution; the second has twice as many."""
    hidden: Annotated[int, Ge(1)] = 128
    """Units of the hidden linear layer."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels, height, width = size
        cells = ((height + 1) // 2) * ((width + 1) // 2)
        return nn.Sequential(
            nn.Conv2d(channels, self.width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(self.width, 2 * self.width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * self.width * cells, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
