"""Gradients averaged over noisy copies."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.explanations.contract import HeatMap
from bascule.explanations.gradient import ScoreName, input_gradient


@component
class Smoothgrad(HeatMap):
    """SmoothGrad (Smilkov et al. 2017): the mean gradient over copies with Gaussian noise, absolute, channels summed.

    One backward pass per copy. The noisy copies are not clipped to [0, 1].
    """

    follows_gradients: ClassVar[bool] = True

    score: ScoreName = "logit"
    """`logit`: the label's logit; `loss`: the cross-entropy with the label."""
    samples: Annotated[int, Ge(1)] = 50
    """Noisy copies of each image."""
    sigma: Annotated[float, Gt(0)] = 0.15
    """Standard deviation of the noise in [0, 1] pixel units; the paper recommends 0.1 to 0.2 of the images' range."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        total = torch.zeros_like(x)
        for _ in range(self.samples):
            noise = torch.empty_like(x).normal_(std=self.sigma, generator=generator)
            total += input_gradient(model, x + noise, y, score=self.score)
        return (total / self.samples).abs().sum(1)
