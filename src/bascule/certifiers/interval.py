"""Interval bound propagation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.certifiers.bounds import followed, proved_radius
from bascule.certifiers.contract import Certifier
from bascule.core.catalog import component


@component
class Interval(Certifier):
    """Interval bound propagation (Gowal et al. 2018): a box around every value, the last layer merged into the margins.

    Costs about two forward passes. Tight only for networks trained with it (`train/ibp`); others are rarely certified.
    Departure: all affine operations after the last activation are merged, not the last layer alone; never looser. The
    input is the ball cut to [0, 1]. For L2, what comes before the first activation is bounded by the length of each
    unit's weights (the dual norm), and boxes begin there. Rounding is allowed for by a margin of 256 machine epsilons
    relative to the terms of a margin's sum.
    """

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        followed(model, x)

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return proved_radius(model, x, y, norm=self.norm, eps=self.eps)
