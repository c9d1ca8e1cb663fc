"""Where in frequency a model is sensitive."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.explanations.contract import Spectrum
from bascule.explanations.frequencies import rings
from bascule.explanations.gradient import ScoreName, input_gradient


@component
class BandEnergy(Spectrum):
    """Share of the input gradient's energy in each ring of frequencies, one backward pass; the shares sum to 1.

    The squared Fourier transform of the gradient, all channels together; a ring is one cycle over the image's longer
    side wide, the first is the mean alone. NaN where the gradient is zero.
    """

    score: ScoreName = "loss"
    """`loss`: the cross-entropy with the label; `logit`: the label's logit."""

    def frequencies(self, height: int, width: int) -> Tensor:
        return torch.arange(int(rings(height, width).max()) + 1, dtype=torch.float64).unsqueeze(1) / max(height, width)

    def response(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        height, width = x.shape[2:]
        # In 64 bits: the square of a confident model's gradient is 0 in 32.
        gradient = input_gradient(model, x, y, score=self.score).double()
        energy = torch.fft.fft2(gradient).abs().square().sum(1).flatten(1)
        in_rings = energy.new_zeros(len(x), len(self.frequencies(height, width)))
        in_rings.index_add_(1, rings(height, width).flatten().to(x.device), energy)
        return in_rings / energy.sum(1, keepdim=True)
