"""Projected gradient ascent on the input: the search inside `pgd`, `fgsm` and adversarial training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.ball import Ball

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits B x K, labels (B,)) -> loss per image, shape (B,); the search raises it."""

LossName = Literal["ce", "margin"]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per image."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest wrong logit minus the label's logit (Carlini & Wagner 2017); positive exactly when misclassified."""
    label = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    wrong = logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1)
    return wrong - label


def nearness_to_random_label(*, generator: torch.Generator) -> Loss:
    """Minus the cross-entropy of labels drawn uniformly from all but the given ones, drawn anew at every call."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        classes = logits.shape[1]
        shift = torch.randint(1, classes, y.shape, generator=generator, device=y.device)
        return -cross_entropy(logits, (y + shift) % classes)

    return loss


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
    origin, current = x, start
    found = start.clone() if stop_when_fooled else start
    places = torch.arange(len(x), device=x.device) if stop_when_fooled else None
    for _ in range(steps):
        current = current.detach().requires_grad_(True)
        logits = model(current)
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), current)
        with torch.no_grad():
            current = current.detach()
            if places is not None:
                fooled = logits.argmax(1) != y
                if bool(fooled.any()):
                    found[places[fooled]] = current[fooled]
                    stay = ~fooled
                    places, current, gradient = places[stay], current[stay], gradient[stay]
                    origin, y = origin[stay], y[stay]
                    if len(places) == 0:
                        return found
            current = ball.project(ball.step(current, gradient, step_size), origin)
    if places is None:
        return current
    found[places] = current
    return found


def one_step(model: nn.Module, x: Tensor, y: Tensor, *, ball: Ball, loss: Loss) -> Tensor:
    """One step of the ball's radius from `x` itself: the fast gradient method (Goodfellow et al. 2015)."""
    return ascend(model, x, y, ball=ball, start=x, steps=1, step_size=ball.eps, loss=loss, stop_when_fooled=False)
