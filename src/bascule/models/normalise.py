"""Input normalisations: the first layer of a network that takes images in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError


class Normalise(nn.Module):
    """(x - mean) / std by channel. Both are settings of the network, so they are no part of its state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], *, channels: int) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                problem = f"has {len(values)} entries; give one for all channels, or one for each of {channels}"
                raise RequestError(problem, place=(name,))
            self.register_buffer(name, torch.tensor(values).reshape(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to the same shape."""
        return (x - self.mean) / self.std


class Standardise(nn.Module):
    """(x - mean) / max(std, 1 / sqrt(n)) over all n values of each image, TensorFlow's `per_image_standardization`.

    The lower bound is taken under the root, so that the gradient of an image of one colour is finite.
    """

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to the same shape."""
        values = (1, 2, 3)
        variance = x.var(values, correction=0, keepdim=True)
        return (x - x.mean(values, keepdim=True)) / variance.clamp_min(1 / x[0].numel()).sqrt()
