"""The large network of interval bound propagation."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.text import count
from bascule.models._certified import initialise, same_padding
from bascule.models.contract import Architecture
from bascule.models.normalise import Normalise


@component
class IbpLarge(Architecture):
    """Five 3 x 3 convolutions (64, 64, 128 with stride 2, 128, 128 channels) and 512 hidden units, all with ReLU.

    Source: Gowal et al. 2018, "large"; the network of table 1b of Weng, Lee & Wu 2020. Orthogonal weights, zero biases,
    TensorFlow's SAME padding (with stride 2 an even side is padded at its end only). For CIFAR-10 it
    normalises by [[0.4914, 0.2023], [0.4822, 0.1994], [0.4465, 0.2010]].
    """

    width: Annotated[int, Ge(1)] = 64
    """Channels of the first two convolutions; the others have twice as many."""
    hidden: Annotated[int, Ge(1)] = 512
    """Units of the hidden linear layer."""
    normalise: tuple[tuple[float, Annotated[float, Gt(0)]], ...] = ()
    """Mean and standard deviation of each channel, for a first layer (x - mean) / std; empty for none."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels, height, width = size
        if self.normalise and len(self.normalise) != channels:
            raise RequestError(f"normalise names {count(len(self.normalise), 'channel')}, the images have {channels}")
        layers: list[nn.Module] = []
        if self.normalise:
            mean, std = zip(*self.normalise, strict=True)
            layers.append(Normalise(mean, std, channels=channels))
        for wide, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (2, 1)):
            sides = same_padding(width, 3, stride) + same_padding(height, 3, stride)
            even = sides == (1, 1, 1, 1)
            layers += [] if even else [nn.ZeroPad2d(sides)]
            layers += [nn.Conv2d(channels, wide * self.width, 3, stride, int(even)), nn.ReLU()]
            channels, height, width = wide * self.width, -(-height // stride), -(-width // stride)
        layers += [nn.Flatten(), nn.Linear(channels * height * width, self.hidden), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(self.hidden, classes))
        initialise(net)
        return net
