"""The fast gradient sign method."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from bascule.attacks.ascent import one_step
from bascule.attacks.contract import Attack
from bascule.attacks.losses import cross_entropy
from bascule.core.ball import LinfOrL2
from bascule.core.catalog import component


@component
class Fgsm(Attack):
    """One gradient step of length eps from the image itself (Goodfellow et al. 2015; in L2 the fast gradient method).

    Weak on purpose: a lower bound on what an attacker can do, and a sanity check, since PGD must never do worse.
    """

    mixed_precision: ClassVar[bool] = True

    norm: LinfOrL2 = "linf"
    """Norm of the ball: `linf` or `l2`."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return one_step(model, x, y, ball=self.ball, loss=cross_entropy)
