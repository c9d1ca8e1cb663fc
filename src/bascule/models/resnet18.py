"""ResNet-18 for small images."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le, MinLen
from torch import nn

from bascule.core.catalog import component
from bascule.models._resnet import BasicBlock, ResNet
from bascule.models.contract import Pretrainable
from bascule.models.normalise import Normalise


@component
class Resnet18(Pretrainable):
    """ResNet-18 with a stem for small images: one 3 x 3 convolution with stride 1, no max-pooling.

    Source: He et al. 2016 (Deep Residual Learning for Image Recognition), table 1, 18 layers, with the stem of their
    section 4.2, as is usual on CIFAR-10. Global average pooling: takes images of any size. The state dict has the names
    of torchvision's `resnet18`; `conv1.weight` is 3 x 3 instead of 7 x 7. Initialised as there: convolutions
    He-normal (fan-out), linear layer PyTorch's default.
    """

    mean: Annotated[tuple[float, ...], MinLen(1)] = (0.4914, 0.4822, 0.4465)
    """Subtracted from images in [0, 1]: a value for each channel, or one for all. The default is CIFAR-10's."""
    std: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.2470, 0.2435, 0.2616)
    """Divides the difference: a value for each channel, or one for all. The default is CIFAR-10's."""
    momentum: Annotated[float, Gt(0), Le(1)] = 0.1
    """Share of a batch's statistics in the batch norms' running ones."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels = size[0]
        return ResNet(
            BasicBlock,
            (2, 2, 2, 2),
            normalise=Normalise(self.mean, self.std, channels=channels),
            stem=nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            pool=nn.Identity(),
            classes=classes,
            momentum=self.momentum,
        )
