"""The pre-activation ResNet-18 of the backdoor literature."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.models.contract import Pretrainable
from bascule.models.normalise import Normalise


@component
class Preactresnet18(Pretrainable):
    """PreActResNet-18 with the layer names of BackdoorBench's `preactresnet18`, so that its state dicts fit.

    Source: He et al. 2016 (Identity Mappings in Deep Residual Networks), figure 4e, with the stem for small images of
    ResNet's section 4.2, as BackdoorBench (Wu et al. 2022) and the code of WaNet have it: a shortcut that changes the
    shape is one 1 x 1 convolution behind the block's first batch norm and ReLU. 11,171,146 parameters for 3 channels
    and 10 classes. Global average pooling: takes images of any size. Initialised as there, by PyTorch's defaults.

    Departure of theirs from the paper: no batch norm and no ReLU between the last block and the pooling.

    Their networks see images that are normalised before: CIFAR-10's as by default here. For their other data sets
    `mean` and `std`: CIFAR-100 (0.5071, 0.4865, 0.4409) and (0.2673, 0.2564, 0.2762), Tiny-ImageNet (0.4802, 0.4481,
    0.3975) and (0.2302, 0.2265, 0.2262), MNIST 0.5 and 0.5, GTSRB and CelebA 0 and 1.
    """

    mean: Annotated[tuple[float, ...], MinLen(1)] = (0.4914, 0.4822, 0.4465)
    """Subtracted from images in [0, 1]: a value for each channel, or one for all. The default is CIFAR-10's."""
    std: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.247, 0.243, 0.261)
    """Divides the difference: a value for each channel, or one for all. The default is CIFAR-10's."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        normalise = Normalise(self.mean, self.std, channels=size[0])
        return PreActResNet(normalise, size[0], classes)


class PreActResNet(nn.Module):
    """Normalisation, stem, four layers of two blocks, global average pooling, linear layer."""

    def __init__(self, normalise: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(PreActBlock(64, 64, stride=1), PreActBlock(64, 64, stride=1))
        self.layer2 = nn.Sequential(PreActBlock(64, 128, stride=2), PreActBlock(128, 128, stride=1))
        self.layer3 = nn.Sequential(PreActBlock(128, 256, stride=2), PreActBlock(256, 256, stride=1))
        self.layer4 = nn.Sequential(PreActBlock(256, 512, stride=2), PreActBlock(512, 512, stride=1))
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W in [0, 1] to B x classes."""
        x = self.layer2(self.layer1(self.conv1(self.normalise(x))))
        return self.linear(self.layer4(self.layer3(x)).mean((2, 3)))


class PreActBlock(nn.Module):
    """Twice batch norm, ReLU and a 3 x 3 convolution, added to the shortcut."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        changes = stride != 1 or before != after
        # In a Sequential for its name in files: shortcut.0.weight.
        self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """B x `before` x H x W to B x `after` x H/stride x W/stride, rounded up."""
        active = F.relu(self.bn1(x))
        beside = x if self.shortcut is None else self.shortcut(active)
        inner: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return inner + beside
