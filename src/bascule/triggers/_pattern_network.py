"""The small network that draws a picture for each image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_MOMENTUM = 0.05
"""Of batch norm, as in the code of Nguyen & Tran 2020."""


class PatternNetwork(nn.Module):
    """From [0, 1] images to pictures of their height and width with values in [0, 1].

    Downwards and upwards again, without a way around, as the generators of Nguyen & Tran 2020 (networks/models.py):
    `levels` times two 3 x 3 convolutions and a maximum over 2 x 2, one convolution, and `levels` times enlarged with
    two convolutions; each followed by batch norm and all but the last by ReLU. The first level has `width` channels,
    every further one twice as many. Departure: sides that 2 ** levels does not divide are allowed.
    """

    def __init__(self, channels: int, out: int, *, width: int, levels: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        befores = [channels, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(*_block(before, after), *_block(after, after))
            for before, after in zip(befores, widths, strict=True)
        )
        self.middle = nn.Sequential(*_block(widths[-1], widths[-1]))
        self.up = nn.ModuleList(
            nn.Sequential(*_block(before, before), *_block(before, after, relu=level > 0))
            for level, before, after in zip(
                range(levels - 1, -1, -1), widths[::-1], [*widths[-2::-1], out], strict=True
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pictures, B x out x H x W, of images, B x channels x H x W."""
        x = 2 * x - 1
        sizes = []
        for part in self.down:
            sizes.append(x.shape[2:])
            x = F.max_pool2d(part(x), 2, ceil_mode=True)
        x = self.middle(x)
        for part in self.up:
            x = part(F.interpolate(x, size=sizes.pop(), mode="bilinear"))
        return x.tanh() / 2 + 0.5


def _block(before: int, after: int, *, relu: bool = True) -> list[nn.Module]:
    block = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after, momentum=_MOMENTUM)]
    return [*block, nn.ReLU()] if relu else block
