"""The ImageNet network of the study."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import nn

from bascule.core.catalog import component
from bascule.models._resnet import Bottleneck, ResNet
from bascule.models.contract import Pretrainable
from bascule.models.normalise import Normalise


@component
class Resnet50(Pretrainable):
    """ResNet-50, version 1.5: the stride is on the 3 x 3 convolution.

    Source: He et al. 2016 (Deep Residual Learning for Image Recognition), table 1; as the ImageNet network of Weng, Lee
    & Wu 2020. Global average pooling: takes images of any size. The state dict has the names and shapes of
    torchvision's `resnet50`, so its files of weights fit.

    Departures from the study's TensorFlow network, all for torchvision's sake: the max-pooling pads all sides by one
    pixel, there only the bottom and the right; images are divided by the channels' standard deviation, there the mean
    of 0 to 255 is subtracted and no more (`mean: [0.4850, 0.4580, 0.4076]`, `std: [0.00392157]`); convolutions start
    He-normal (fan-out) and the linear layer at PyTorch's default, there variance-scaled by fan-in and Glorot-uniform
    (it starts from trained weights anyway); the running variance is the unbiased one. Its 1001 classes
    include a background.
    """

    denoise: bool = False
    """Denoising blocks after `layer3` and `layer4` (Xie et al. 2019), fresh when the file of weights has none."""
    width: Annotated[int, Ge(1)] = 1
    """Factor of all channels behind the stem; 2 is the wide variant of the study's supplement (table 4)."""
    momentum: Annotated[float, Gt(0), Le(1)] = 0.003
    """Share of a batch's statistics in the batch norms' running ones; in a short training 0.1 is the better choice."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels = size[0]
        return ResNet(
            Bottleneck,
            (3, 4, 6, 3),
            normalise=Normalise(self.mean, self.std, channels=channels),
            stem=nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
            classes=classes,
            momentum=self.momentum,
            width=self.width,
            denoise=self.denoise,
        )

    @property
    def fresh(self) -> tuple[str, ...]:
        return ("denoise3", "denoise4")
