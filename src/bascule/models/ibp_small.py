"""The small network of interval bound propagation."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.models._certified import initialise
from bascule.models.contract import Architecture


@component
class IbpSmall(Architecture):
    """Two 4 x 4 convolutions (16 channels with stride 2, 32 with stride 1), no padding, and 100 hidden units.

    Source: Gowal et al. 2018, "small". Orthogonal weights and zero biases as in their released code. Two cores train it
    with interval bounds on MNIST in a minute or two.
    """

    width: Annotated[int, Ge(1)] = 16
    """Channels of the first convolution; the second has twice as many."""
    hidden: Annotated[int, Ge(1)] = 100
    """Units of the hidden linear layer."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels, height, width = size
        if height < 10 or width < 10:
            raise RequestError(f"ibp-small needs images of at least 10 x 10, got {height} x {width}")
        cells = ((height - 4) // 2 - 2) * ((width - 4) // 2 - 2)
        net = nn.Sequential(
            nn.Conv2d(channels, self.width, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(self.width, 2 * self.width, 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * self.width * cells, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
        initialise(net)
        return net
