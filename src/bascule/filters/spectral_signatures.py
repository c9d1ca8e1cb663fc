"""Distance along the strongest direction of a class."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Interval
from torch import nn

from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.projection import principal
from bascule.filters.contract import Judged, LayerFilter
from bascule.filters.rules import highest, note_left_out


@component
class SpectralSignatures(LayerFilter):
    """Spectral signatures (Tran, Li & Madry 2018, algorithm 1): distance along the top singular vector of each class.

    Score: |v . (h - mean)| for the features h of an image and the top right singular vector v of its class's centred
    features, in the layer's own unit, the same for all classes. (Tran et al. square it, which changes no order.) Of
    each class the `factor` x `rate` highest are removed, whether or not it looks poisoned: the paper's rule.

    With `centred: false` the score is |v . h|, as in the study of Weng, Lee & Wu 2020 and in ART.
    """

    rate: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Assumed poisoned share of a class."""
    factor: Annotated[float, Gt(0)] = 1.5
    """Times the assumed share is removed."""
    centred: bool = True
    """Measure from the class's mean instead of from zero."""

    def __post_init__(self) -> None:
        if self.factor * self.rate >= 1:
            raise ValueError(f"factor {self.factor} x rate {self.rate} would remove whole classes; must be below 1")

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        score = torch.zeros(len(images), device=images.device)
        removed = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        untouched: list[int] = []
        for label, index, part in self.features(model, images).by_class():
            count = round(self.factor * self.rate * len(index))
            if count == 0:
                untouched.append(label)
            if len(index) == 1:
                continue
            rows = part.in_memory()
            axis = principal(rows, 1, generator=generator)
            if not self.centred:
                axis = axis._replace(mean=torch.zeros_like(axis.mean))
            score[index] = axis.of(rows).squeeze(1).abs()
            removed[index] = highest(score[index], count)
        notes = note_left_out(images, untouched, f"{self.factor:g} x {self.rate:g} of so few images being none")
        return Judged(score, removed, notes)
