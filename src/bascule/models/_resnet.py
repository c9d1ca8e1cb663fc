"""Post-activation residual networks with the layer names of torchvision's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bascule.models.denoise import DenoisingBlock

_EPS = 1e-5


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions; He et al. 2016, figure 5 left."""

    expansion = 1

    def __init__(self, channels: int, inner: int, *, stride: int, momentum: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, eps=_EPS, momentum=momentum)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner, eps=_EPS, momentum=momentum)
        self.downsample = _shortcut(channels, inner, stride=stride, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to B x `inner` x H/stride x W/stride, rounded up."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (which has the stride: version 1.5) and 1 x 1; He et al. 2016, figure 5 right."""

    expansion = 4

    def __init__(self, channels: int, inner: int, *, stride: int, momentum: float) -> None:
        super().__init__()
        outer = inner * self.expansion
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, eps=_EPS, momentum=momentum)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner, eps=_EPS, momentum=momentum)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer, eps=_EPS, momentum=momentum)
        self.downsample = _shortcut(channels, outer, stride=stride, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to B x 4 `inner` x H/stride x W/stride, rounded up."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _shortcut(channels: int, outer: int, *, stride: int, momentum: float) -> nn.Sequential | None:
    """The projection of a shortcut, where the shape changes."""
    if stride == 1 and channels == outer:
        return None
    return nn.Sequential(
        nn.Conv2d(channels, outer, 1, stride=stride, bias=False), nn.BatchNorm2d(outer, eps=_EPS, momentum=momentum)
    )


class ResNet(nn.Module):
    """Normalisation, stem, four layers of blocks, global average pooling, linear layer."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, int, int, int],
        *,
        normalise: nn.Module,
        stem: nn.Conv2d,
        pool: nn.Module,
        classes: int,
        momentum: float,
        width: int = 1,
        denoise: bool = False,
    ) -> None:
        """Draw a network.

        Args:
            block: Kind of block.
            blocks: Blocks in each of the four layers.
            normalise: The first layer.
            stem: The first convolution, to 64 channels.
            pool: What follows it.
            classes: Number of logits.
            momentum: Of all batch norms, in PyTorch's sense.
            width: Factor of all channels behind the stem.
            denoise: A denoising block after the third and after the fourth layer.
        """
        super().__init__()
        self.normalise = normalise
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(stem.out_channels, eps=_EPS, momentum=momentum)
        self.maxpool = pool
        channels, layers = stem.out_channels, []
        for i, count in enumerate(blocks):
            layer = nn.Sequential()
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                layer.append(block(channels, 64 * width * 2**i, stride=stride, momentum=momentum))
                channels = 64 * width * 2**i * block.expansion
            layers.append(layer)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.fc = nn.Linear(channels, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        # After the others, so that these draw the same weights with and without.
        self.denoise3, self.denoise4 = (
            DenoisingBlock(count, momentum=momentum, eps=_EPS, gain=True) if denoise else nn.Identity()
            for count in (channels // 2, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W in [0, 1] to B x classes."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(self.normalise(x)))))
        x = self.denoise3(self.layer3(self.layer2(self.layer1(x))))
        x = self.denoise4(self.layer4(x))
        return self.fc(x.mean((2, 3)))
