"""Certified training with interval bounds."""

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
class Ibp(Objective):
    """Interval bound propagation in Linf (Gowal et al. 2018): kappa * CE(images) + (1 - kappa) * CE(worst-case logits).

    The worst-case logits are interval bounds of the margins with the last layer merged into them, over the ball cut to
    [0, 1]. During `warmup` the loss is plain cross-entropy; over `ramp` eps rises linearly from 0 and kappa falls
    linearly from 1; then both stay. As released with Weng, Lee & Wu 2020: MNIST eps 0.4, 2,000 and 10,000 of 60,001
    steps (the default shares); CIFAR-10 eps 8.8/255, 5,000 and 50,000 of 100,001 steps, batches of 2,000.

    Batch norm uses the statistics of the images themselves for the bounds too. With eps 0 the loss is plain
    cross-entropy throughout: the study's row "None" of table 1b.
    """

    needs_float32: ClassVar[bool] = True
    compiles: ClassVar[bool] = False

    eps: Eps
    """Radius of the ball after the ramp, in [0, 1] pixel units."""
    warmup: Annotated[float, Interval(ge=0, le=1)] = 1 / 30
    """Share of the training before the ramp."""
    ramp: Annotated[float, Interval(ge=0, le=1)] = 1 / 6
    """Share of the training over which eps rises and kappa falls."""
    kappa_end: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Weight of the images themselves after the ramp."""

    @property
    def ball(self) -> Ball:
        """The threat model."""
        return ball("linf", self.eps)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        share = ramp_share(progress, warmup=self.warmup, ramp=self.ramp)
        eps, kappa = share * self.eps, 1 - share * (1 - self.kappa_end)
        if eps == 0:
            return F.cross_entropy(model(x), y)
        bounds = bound_for_training(model, x, eps=eps)
        return mixed_loss(bounds.logits, bounds.interval_margins(y), y, kappa=kappa)

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        check_bounds(model, x, eps=self.eps)
