"""How sure the model stays of an input when clean images are laid over it."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.inference import entropy_of
from bascule.detectors.contract import Detector, Prepared


@component
class Strip(Detector):
    """STRIP at inference (Gao et al. 2019): a trigger keeps the prediction sure when clean images are added on top.

    Suspicion: minus the mean entropy of the model's predictions for the input with each of `overlays` of the defender's
    images added to it and cut to [0, 1], as a share of the largest possible entropy: between -1 and 0. As a data
    defence the same is `filter/strip`.

    Departures: the overlays are drawn once and are the same for all inputs (theirs for each input anew), so that an
    input is judged the same each time; the threshold is a quantile of what is said of clean images, without the normal
    distribution of their section 5.1 (docs/decisions/0011-strips-threshold.md tells what that does).
    """

    overlays: Annotated[int, Ge(1)] = 100
    """Clean images laid over each input (100 in the paper), all where there are fewer; each costs a forward pass."""

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        drawn = torch.randperm(len(images), generator=generator, device=images.device)[: self.overlays]
        overlays = images.batch(drawn)
        most = len(overlays) * math.log(len(images.classes))

        def suspicion(x: Tensor) -> Tensor:
            entropy = torch.zeros(len(x), device=x.device)
            for overlay in overlays:
                entropy = entropy + entropy_of(model((x + overlay).clamp(max=1))).float()
            return -entropy / most

        return Prepared(suspicion=suspicion)
