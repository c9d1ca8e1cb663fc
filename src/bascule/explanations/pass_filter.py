"""Accuracy without the high or without the low frequencies."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.inference import labels_of
from bascule.explanations.contract import Spectrum
from bascule.explanations.frequencies import radius


@component
class PassFilter(Spectrum):
    """1 where the model is right about the filtered image, 0 elsewhere (as in Yin et al. 2019).

    Frequencies on the wrong side of a cutoff are removed; the mean brightness never is, so that images stay images. The
    result is clipped to [0, 1].
    """

    keep: Literal["low", "high"] = "low"
    """`low`: keep frequencies up to the cutoff; `high`: keep those above it."""
    cutoffs: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (
        0.0625,
        0.125,
        0.1875,
        0.25,
        0.3125,
        0.375,
        0.4375,
        0.5,
    )
    """Distances from zero in cycles per pixel; 0.5 is the highest along an axis, 0.71 the highest of all."""

    def frequencies(self, height: int, width: int) -> Tensor:
        return torch.tensor(self.cutoffs, dtype=torch.float64).unsqueeze(1)

    @torch.no_grad()
    def response(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        height, width = x.shape[2:]
        distance, spectrum, right = radius(height, width), torch.fft.fft2(x), []
        for cutoff in self.cutoffs:
            low = distance <= cutoff + 1e-9  # a cutoff written in decimals reaches the frequency it means
            kept = low if self.keep == "low" else ~low | (distance == 0)
            filtered = torch.fft.ifft2(spectrum * kept.to(x.device)).real.clamp(0, 1)
            right.append(labels_of(model(filtered)) == y)
        return torch.stack(right, 1).to(x)
