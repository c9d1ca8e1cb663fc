"""Errors under waves of one frequency."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.inference import labels_of
from bascule.explanations.contract import Spectrum
from bascule.explanations.frequencies import half_plane, waves

_VALUES = 2**22
"""Pixel values of the perturbed images in one pass."""


@component
class Fourier(Spectrum):
    """Fourier heat map (Yin et al. 2019): 1 where the model is wrong about the image with a wave added, 0 elsewhere.

    The wave has one frequency, the same L2 norm at each, and a random sign in each image and channel; the mean over
    images is the error rate, clean errors included. One pass per frequency, opposite ones being the same. The perturbed
    images are not clipped to [0, 1].
    """

    rms: Annotated[float, Gt(0)] = 0.125
    """Root mean square of the wave over a channel in [0, 1] pixel units, L2 norm / sqrt(height * width).

    Yin et al. use L2 norm 4 on 32 x 32 images, 0.125, and 15.7 on 224 x 224, 0.07.
    """
    stride: Annotated[int, Ge(1)] = 1
    """Every how many cycles per image a frequency is tried, along each axis."""

    def frequencies(self, height: int, width: int) -> Tensor:
        return half_plane(height, width, stride=self.stride) / torch.tensor([height, width], dtype=torch.float64)

    @torch.no_grad()
    def response(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        batch, channels, height, width = x.shape
        added = waves(half_plane(height, width, stride=self.stride), height, width).to(x)
        added *= self.rms * math.sqrt(height * width)
        signs = torch.randint(0, 2, (batch, len(added), channels), generator=generator, device=x.device).to(x) * 2 - 1
        wrong = []
        for part in torch.arange(len(added), device=x.device).split(max(1, _VALUES // x.numel())):
            moved = x.unsqueeze(1) + signs[:, part, :, None, None] * added[part].unsqueeze(1)
            prediction = labels_of(model(moved.flatten(0, 1))).reshape(batch, len(part))
            wrong.append(prediction != y.unsqueeze(1))
        return torch.cat(wrong, 1).to(x)
