"""One gradient step towards a random label."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from bascule.attacks.ascent import one_step
from bascule.attacks.contract import Attack
from bascule.attacks.losses import nearness_to_random_label
from bascule.core.ball import LinfOrL2
from bascule.core.catalog import component


@component
class FgsmTargeted(Attack):
    """One gradient step of length eps from the image itself towards a random wrong label.

    Source: the one-step target class method of Kurakin, Goodfellow & Bengio 2017 with a random class; the "FGSM
    robustness" of Weng, Lee & Wu 2020 (supplement). Weaker than `fgsm` although any wrong prediction counts as success,
    not only the label drawn.
    """

    mixed_precision: ClassVar[bool] = True

    norm: LinfOrL2 = "linf"
    """Norm of the ball: `linf` or `l2`."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return one_step(model, x, y, ball=self.ball, loss=nearness_to_random_label(generator=generator))
