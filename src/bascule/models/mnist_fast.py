"""A small strided network for MNIST that trains adversarially on two cores in about a minute."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.models.contract import Architecture
from bascule.models.denoise import DenoisingBlock

_MOMENTUM = 0.01
"""Of the blocks' batch norm: the study's 0.001 would lag behind in the few thousand steps this network is made for."""


@component
class MnistFast(Architecture):
    """Two 4 x 4 convolutions with stride 2 and one hidden linear layer.

    The architecture used for fast adversarial and certified training on MNIST by Wong & Kolter 2018 (section 5) and
    Wong, Rice & Kolter 2020.
    """

    width: Annotated[int, Ge(1)] = 16
    """Channels of the first convolution; the second has twice as many."""
    hidden: Annotated[int, Ge(1)] = 100
    """Units of the hidden linear layer."""
    denoise: bool = False
    """A denoising block (Xie et al. 2019) after each convolution; `width` must then be even."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels, height, width = size
        if height < 4 or width < 4:
            raise RequestError(f"mnist-fast needs images of at least 4 x 4, got {height} x {width}")
        if self.denoise and self.width % 2:
            raise RequestError(f"denoise needs an even width, got {self.width}", place=("width",))
        return nn.Sequential(
            nn.Conv2d(channels, self.width, 4, stride=2, padding=1),
            nn.ReLU(),
            *([DenoisingBlock(self.width, momentum=_MOMENTUM)] if self.denoise else []),
            nn.Conv2d(self.width, 2 * self.width, 4, stride=2, padding=1),
            nn.ReLU(),
            *([DenoisingBlock(2 * self.width, momentum=_MOMENTUM)] if self.denoise else []),
            nn.Flatten(),
            nn.Linear(2 * self.width * (height // 4) * (width // 4), self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
