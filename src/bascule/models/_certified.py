"""What the networks of interval bound propagation share."""

from __future__ import annotations

from torch import Tensor, nn


class Normalise(nn.Module):
    """Subtracts a mean from each channel and divides by a standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: tuple[tuple[float, float], ...]) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), zip(*channels, strict=True), strict=True):
            self.register_buffer(name, Tensor(values).reshape(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


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
