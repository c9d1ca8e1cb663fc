"""A small residual network for colour pictures that trains quickly, also on a processor."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.models.contract import Architecture
from bascule.models.denoise import DenoisingBlock
from bascule.models.normalise import Normalise

_MOMENTUM = 0.01
"""Of the denoising blocks' batch norm: the study's 0.001 would lag behind in short trainings."""


@component
class Resnet9(Architecture):
    """ResNet-9: a stem, three convolutions with pooling, and a residual pair after the first and the last of them.

    Source: Page 2018 (How to Train Your ResNet, the DAWNBench network). Every convolution is 3 x 3 without bias and
    followed by batch norm and ReLU; the last map is reduced by its maximum. Layers are named `stem`, `layer1`,
    `residual1`, `layer2`, `layer3`, `residual3` and `fc`.

    Departures: the stem may have a stride, for larger pictures or less work; the widths are settings; the logits are
    not scaled by 0.125.
    """

    widths: tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)], Annotated[int, Ge(1)], Annotated[int, Ge(1)]] = (
        64,
        128,
        256,
        512,
    )
    """Channels of the stem and of the three convolutions after it."""
    stem: Annotated[int, Ge(1)] = 1
    """Stride of the stem: 1 for pictures of 32 x 32 as published; 2 takes a quarter of the work, 4 is for 64 x 64."""
    denoise: bool = False
    """A denoising block (Xie et al. 2019) after each residual pair; the widths must then be even."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels, height, width = size
        if min(height, width) < 8 * self.stem:
            least = 8 * self.stem
            raise RequestError(
                f"resnet9 with a stem of {self.stem} needs at least {least} x {least}, got {height} x {width}"
            )
        if self.denoise and (self.widths[1] % 2 or self.widths[3] % 2):
            raise RequestError(f"denoise needs even widths, got {self.widths}", place=("widths",))
        first, second, third, last = self.widths
        parts: OrderedDict[str, nn.Module] = OrderedDict(normalise=Normalise((0.5,), (0.25,), channels=channels))
        parts["stem"] = _convolution(channels, first, stride=self.stem)
        parts["layer1"] = nn.Sequential(*_convolution(first, second), nn.MaxPool2d(2))
        parts["residual1"] = Residual(second)
        parts["layer2"] = nn.Sequential(*_convolution(second, third), nn.MaxPool2d(2))
        parts["layer3"] = nn.Sequential(*_convolution(third, last), nn.MaxPool2d(2))
        parts["residual3"] = Residual(last)
        parts["pool"] = nn.AdaptiveMaxPool2d(1)
        parts["flatten"] = nn.Flatten()
        parts["fc"] = nn.Linear(last, classes)
        if not self.denoise:
            return nn.Sequential(parts)
        # Drawn last, so that all other layers start from the same weights with and without.
        blocks = {
            "residual1": DenoisingBlock(second, momentum=_MOMENTUM),
            "residual3": DenoisingBlock(last, momentum=_MOMENTUM),
        }
        denoised: OrderedDict[str, nn.Module] = OrderedDict()
        for name, part in parts.items():
            denoised[name] = part
            if name in blocks:
                denoised[name.replace("residual", "denoise")] = blocks[name]
        return nn.Sequential(denoised)


class Residual(nn.Module):
    """x + f(x), with two convolutions in f."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(*_convolution(channels, channels), *_convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to the same shape."""
        inner: Tensor = self.inner(x)
        return x + inner


def _convolution(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )
