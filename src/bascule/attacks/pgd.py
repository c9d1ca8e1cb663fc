"""Projected gradient descent."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.attacks.ascent import LOSSES, LossName, ascend
from bascule.attacks.contract import Attack
from bascule.core.catalog import component


@component
class Pgd(Attack):
    """Projected gradient descent from a random start (Madry et al. 2018; Linf: iterated sign steps, L2: unit steps).

    In L1 it is sparse descent (SLIDE; Tramer & Boneh 2019, section 2.2): a step moves the 1 % of the entries with the
    largest gradients. Departure: projected exactly into the ball and [0, 1] at once (Croce & Hein 2021).

    Departure: by default an image is done at its first misclassified iterate, so the verdict is the worst over all
    iterates rather than the last one; never weaker, and much cheaper on a weak model.
    """

    mixed_precision: ClassVar[bool] = True

    steps: Annotated[int, Ge(1)] = 20
    """Gradient steps per try."""
    step_size: Annotated[float, Gt(0)] | None = None
    """Length of a step in [0, 1] pixel units; by default 2.5 * eps / steps, which can cross the ball."""
    loss: LossName = "ce"
    """`ce` (cross-entropy) or `margin` (largest wrong logit minus the label's)."""
    random_start: bool = True
    """Start at a point drawn uniformly from the ball instead of the image itself."""
    stop_when_fooled: bool = True
    """Leave an image at its first misclassified iterate instead of always taking the last one."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return ascend(
            model,
            x,
            y,
            ball=self.ball,
            start=self.ball.random_point(x, generator=generator) if self.random_start else x,
            steps=self.steps,
            step_size=self.step_size or 2.5 * self.eps / self.steps,
            loss=LOSSES[self.loss],
            stop_when_fooled=self.stop_when_fooled,
        )
