"""More training on clean images."""

from __future__ import annotations

import torch
from torch import nn

from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.repairs.contract import FineTuning, Repaired


@component
class FineTune(FineTuning):
    """Training goes on, on the defender's images: the plainest repair, and the yardstick for all others.

    Source: as a defence, Liu et al. 2017 (Neural Trojans); the baseline of Liu et al. 2018 and Li et al.
    2021. Often leaves a backdoor in place, since clean images give its weights no gradient.

    Defaults: BackdoorBench's (SGD at 0.01, momentum 0.9, weight decay 5e-4, 100 passes, cosine), but for the batch.
    There 256 of 2,500 images make 10 steps a pass; of a few hundred images they would make one or two, so it is 64, as
    in NAD's code: 700 steps with 500 images. Nothing was chosen by ASR.
    """

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        self.tune(model, images, generator=generator)
        return Repaired(model, {})
