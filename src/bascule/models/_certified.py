"""What the networks of interval bound propagation share."""

from __future__ import annotations

from torch import nn


def initialise(net: nn.Module) -> None:
    """Orthogonal weights, zero biases."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side of `size` pixels so that the result has ceil(size / stride): TensorFlow's SAME.

    An odd number of zeros leaves the larger half after: with stride 2 an even side is padded at its end only.
    """
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2
