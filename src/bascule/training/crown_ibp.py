"""Certified training with linear bounds that give way to interval bounds."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from bascule.certifiers.bounds import bound_for_training
from bascule.core.ball import Ball, Eps, ball
from bascule.core.catalog import component
from bascule.training._certified import check_bounds, mixed_loss, ramp_share
from bascule.training.contract import Objective


@component
class CrownIbp(Objective):
    """CROWN-IBP in Linf (Zhang et al. 2020, section 3.2): as `ibp`, with margins beta * linear + (1 - beta) * interval.

    The tight linear bounds guide the start, where intervals are so wide that training is unstable; beta falls linearly
    from 1 to `beta_end` over the ramp, together with kappa and while eps rises. At beta 0 a step costs what it costs
    with `ibp`.
    """

    needs_float32: ClassVar[bool] = True
    compiles: ClassVar[bool] = False

    eps: Eps
    """Radius of the ball after the ramp, in [0, 1] pixel units."""
    warmup: Annotated[float, Interval(ge=0, le=1)] = 1 / 30
    """Share of the training before the ramp."""
    ramp: Annotated[float, Interval(ge=0, le=1)] = 1 / 6
    """Share of the training over which eps rises and kappa and beta fall."""
    kappa_end: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Weight of the images themselves after the ramp."""
    beta_end: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Weight of the linear bounds after the ramp."""

    @property
    def ball(self) -> Ball:
        """The threat model."""
        return ball("linf", self.eps)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        share = ramp_share(progress, warmup=self.warmup, ramp=self.ramp)
        eps, kappa, beta = share * self.eps, 1 - share * (1 - self.kappa_end), 1 - share * (1 - self.beta_end)
        if eps == 0:
            return F.cross_entropy(model(x), y)
        bounds = bound_for_training(model, x, eps=eps)
        margins = bounds.interval_margins(y)
        if beta > 0:
            margins = beta * bounds.crown_margins(y) + (1 - beta) * margins
        return mixed_loss(bounds.logits, margins, y, kappa=kappa)

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        check_bounds(model, x, eps=self.eps)
