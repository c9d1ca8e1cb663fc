"""DeepFool."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from bascule.attacks._boundary import gaps, likeliest_wrong, nearest, to_plane
from bascule.attacks.contract import Attack
from bascule.core.ball import LinfOrL2
from bascule.core.catalog import component


@component
class Deepfool(Attack):
    """Steps to the nearest boundary of the linearised model until the image crosses one: a small perturbation, fast.

    Source: Moosavi-Dezfooli, Fawzi & Frossard 2016, algorithm 2 (Linf: section 3.3). It does not know eps: a crossing
    outside of the ball is brought back to its border and rarely counts, so `fab` is the stronger test. Draws nothing: a
    second try is the same as the first.

    Departures: a step goes 1e-4 beyond the boundary and is lengthened by `overshoot` at once, as in the authors' code,
    and is then clipped to [0, 1].
    """

    norm: LinfOrL2 = "linf"
    """Norm of the ball: `linf` or `l2`."""
    steps: Annotated[int, Ge(1)] = 50
    """Most steps per image."""
    overshoot: Annotated[float, Ge(0)] = 0.02
    """Every step is lengthened by this share."""
    targets: Annotated[int, Ge(1)] = 9
    """Boundaries looked at: those to the classes with the largest logits at the image; each costs a backward pass."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.ball.project(self.smallest(model, x, y), x)

    @torch.no_grad()
    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The first crossing of each image, wherever it is; the last step where there was none."""
        logits = model(x)
        targets = likeliest_wrong(logits, y, self.targets)
        x_adv, current, places = x.clone(), x, torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            stay = logits.argmax(1) == y
            if not bool(stay.all()):
                x_adv[places[~stay]] = current[~stay]
                places, current, y, targets = places[stay], current[stay], y[stay], targets[stay]
            if len(places) == 0:
                return x_adv
            gap, gradient = nearest(*gaps(model, current, y, targets), ball=self.ball)
            step = to_plane(gap, gradient, ball=self.ball) + 1e-4 * self.ball.direction(gradient)
            current = (current + (1 + self.overshoot) * step).clamp_(0, 1)
            logits = model(current)
        x_adv[places] = current
        return x_adv
