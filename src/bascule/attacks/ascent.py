"""Projected gradient ascent on the input: the search inside `pgd`, `fgsm` and adversarial training."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bascule.attacks.losses import Loss, cross_entropy, margin
from bascule.attacks.two_precisions import search_pass
from bascule.attacks.unfooled import find_unfooled
from bascule.core.ball import Ball
from bascule.core.gradients import gradient_of

LossName = Literal["ce", "margin"]
LOSSES: dict[LossName, Loss] = {"ce": cross_entropy, "margin": margin}


def ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    start: Tensor,
    steps: int,
    step_size: float,
    loss: Loss,
    stop_when_fooled: bool,
) -> Tensor:
    """`steps` projected gradient steps from `start`, each raising the loss: Madry et al. 2018, section 2.1.

    Uses the model in the mode it is in; the caller freezes parameters. With `stop_when_fooled` an image leaves the
    batch at the first iterate that is misclassified, and gets that iterate; otherwise all get the last iterate.
    """
    if stop_when_fooled:
        return _until_fooled(model, x, y, ball, start, steps, step_size, loss)
    forward, current = search_pass(model), start
    with torch.no_grad():
        project = ball.projector(x)
    for _ in range(steps):
        current = current.detach().requires_grad_(True)
        gradient = gradient_of(loss(forward(current), y).sum(), current)
        with torch.no_grad():
            current = project(ball.step(current.detach(), gradient, step_size))
    return current


def _until_fooled(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, start: Tensor, steps: int, step_size: float, loss: Loss
) -> Tensor:
    x_adv, current = start.clone(), start
    places = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        index, _, gradient = find_unfooled(model, current, loss, (y,))
        if len(index) < len(places):
            x_adv[places] = current  # those who stand get a later one
            places, current, x, y = places[index], current[index], x[index], y[index]
            if len(places) == 0:
                break
        current = ball.project(ball.step(current, gradient, step_size), x)
    x_adv[places] = current
    return x_adv


def one_step(model: nn.Module, x: Tensor, y: Tensor, *, ball: Ball, loss: Loss) -> Tensor:
    """One step of the ball's radius from `x` itself: the fast gradient method (Goodfellow et al. 2015)."""
    return ascend(model, x, y, ball=ball, start=x, steps=1, step_size=ball.eps, loss=loss, stop_when_fooled=False)
