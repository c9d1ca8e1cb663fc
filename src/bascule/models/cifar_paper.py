"""The CIFAR-10 network of the study."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.models.contract import Architecture
from bascule.models.denoise import DenoisingBlock
from bascule.models.normalise import Standardise

_SLOPE = 0.1
_UNITS = 5


@component
class CifarPaper(Architecture):
    """Pre-activation residual network: 32 layers in three groups of five units, 16, 32 and 64 channels.

    Source: Weng, Lee & Wu 2020, released CIFAR code (the narrow network of Madry et al. 2018, He et al. 2016b). Each
    image is standardised inside the network. Layers are named `stem`, `group1` to `group3` (`group3.1` is the study's
    `unit_3_1`), `norm` and `fc`.

    Departures: batch norm keeps the unbiased variance for evaluation, where TensorFlow's unfused one keeps the biased
    (n / (n - 1) for n = images x positions); an image of one colour has a finite gradient. Sides must be multiples of
    4: on others the study's shortcuts have another size than its convolutions.
    """

    width: Annotated[int, Ge(1)] = 1
    """Factor of all channels; 2 is the wide variant of the study's supplement (table 4)."""
    denoise: bool = False
    """A denoising block (Xie et al. 2019) after each group. Its batch norm's momentum of 0.001 wants long trainings."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels, height, width = size
        if height % 4 or width % 4:
            raise RequestError(f"cifar-paper needs images whose sides are multiples of 4, got {height} x {width}")
        groups = [16 * self.width, 32 * self.width, 64 * self.width]
        parts: OrderedDict[str, nn.Module] = OrderedDict(standardise=Standardise())
        parts["stem"] = nn.Conv2d(channels, groups[0], 3, padding=1, bias=False)
        before = groups[0]
        for number, after in enumerate(groups, start=1):
            units = [Unit(before, after, stride=1 if number == 1 else 2, activated_shortcut=number == 1)]
            units += [Unit(after, after) for _ in range(_UNITS - 1)]
            parts[f"group{number}"] = nn.Sequential(*units)
            before = after
        parts["norm"] = _norm(before)
        parts["relu"] = nn.LeakyReLU(_SLOPE)
        parts["pool"] = nn.AdaptiveAvgPool2d(1)
        parts["flatten"] = nn.Flatten()
        parts["fc"] = nn.Linear(before, classes)
        _initialise(nn.Sequential(parts))
        if not self.denoise:
            return nn.Sequential(parts)
        # Drawn last, so that all other layers start from the same weights with and without.
        blocks = {f"group{number}": DenoisingBlock(count, decay=False) for number, count in enumerate(groups, start=1)}
        denoised: OrderedDict[str, nn.Module] = OrderedDict()
        for name, part in parts.items():
            denoised[name] = part
            if name in blocks:
                denoised[name.replace("group", "denoise")] = blocks[name]
        return nn.Sequential(denoised)


class Unit(nn.Module):
    """x -> shortcut(x) + conv(leaky(BN(conv(leaky(BN(x)))))).

    The shortcut is the unit's raw input or, in the first unit of the first group, its activated one. Where the channels
    change it is averaged over windows of the stride and gets channels of zeros, as many in front as behind.
    """

    def __init__(self, channels: int, outer: int, *, stride: int = 1, activated_shortcut: bool = False) -> None:
        """Take B x `channels` x H x W to B x `outer` x H/stride x W/stride; the stride is 1 or 2."""
        super().__init__()
        self.stride = stride
        self.activated_shortcut = activated_shortcut
        self.extra = (outer - channels) // 2
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, outer, 3, stride=stride, padding=1 if stride == 1 else 0, bias=False)
        self.norm2 = _norm(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of even sides, when the stride is 2."""
        active = F.leaky_relu(self.norm1(x), _SLOPE)
        shortcut = active if self.activated_shortcut else x
        if self.extra:
            shortcut = F.pad(F.avg_pool2d(shortcut, self.stride), (0, 0, 0, 0, self.extra, self.extra))
        if self.stride == 2:  # TensorFlow's SAME padding: even sides get theirs at the bottom and the right
            active = F.pad(active, (0, 1, 0, 1))
        inner = F.leaky_relu(self.norm2(self.conv1(active)), _SLOPE)
        return shortcut + self.conv2(inner)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def _initialise(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=(2 / (9 * layer.out_channels)) ** 0.5)
        elif isinstance(layer, nn.Linear):
            bound = (3 / layer.in_features) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
