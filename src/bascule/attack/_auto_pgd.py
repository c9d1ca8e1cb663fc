"""The search of Auto-PGD: gradient ascent with momentum that halves its own steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bascule.attack.losses import AimedLoss
from bascule.attack.unfooled import find_unfooled
from bascule.core.ball import Ball

_MOMENTUM = 0.75
"""Weight of the new step (alpha in the paper); the previous one gets the rest."""


def checkpoints(steps: int) -> list[int]:
    """Steps after which the step size is reconsidered: 22 % of `steps`, then in shrinking distances down to 6 %."""
    marks, percent, gap = [], 22, 22
    while percent < 100:
        marks.append(-(-percent * steps // 100))  # rounded up
        gap = max(gap - 3, 6)
        percent += gap
    return sorted({step for step in marks if step < steps})


class Searched(NamedTuple):
    """Where the search of B images ended."""

    x: Tensor
    """The first misclassified iterate, else the one with the highest loss."""
    fooled: Tensor
    """bool, shape (B,)."""


class _Walk(NamedTuple):
    """What is known of every image that stands; the first dimension of all is S."""

    place: Tensor
    """Its place in the batch."""
    origin: Tensor
    y: Tensor
    target: Tensor
    now: Tensor
    before: Tensor
    value: Tensor
    """Loss at `now`."""
    gradient: Tensor
    best: Tensor
    """The iterate with the highest loss."""
    best_value: Tensor
    best_gradient: Tensor
    size: Tensor
    """Step size."""
    rises: Tensor
    """Steps since the last checkpoint that raised the loss."""
    best_at_check: Tensor
    """`best_value` at the last checkpoint."""
    halved: Tensor
    """Whether `size` was halved there."""

    def at(self, index: Tensor) -> _Walk:
        return _Walk(*(value[index] for value in self))


def auto_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    start: Tensor,
    steps: int,
    rho: float,
    loss: AimedLoss,
    target: Tensor,
    passes: int = 1,
) -> Searched:
    """Croce & Hein 2020 (AutoAttack), algorithm 1, from `start`.

    An image leaves the batch at its first misclassified iterate. Of two details the text leaves open or has otherwise,
    both are as in the authors' code: exactly `rho` of a window's steps raising the loss is too few, and the loss that
    the first step of a window must exceed is that of the last one before it, also after a return to the best point.

    Args:
        model: From images to logits, parameters frozen.
        x: Floats in [0, 1], B x C x H x W.
        y: Labels, shape (B,).
        ball: Around each image of `x`.
        start: Where the search begins, inside the ball.
        steps: Number of steps.
        rho: Share of the steps between two checkpoints that must raise the loss, or the step size is halved.
        loss: (logits, labels, targets) -> loss per image.
        target: What `loss` is given, shape (B,).
        passes: Passes over which loss and gradient are averaged.
    """
    x_adv, fooled = start.clone(), torch.ones_like(y, dtype=torch.bool)
    walk, last_check, checks = _begin(model, x, y, target, start, loss, passes, ball.eps), 0, checkpoints(steps)
    for number in range(1, steps + 1):
        if len(walk.place) == 0:
            break
        ahead = ball.project(ball.step(walk.now, walk.gradient, walk.size), walk.origin)
        if number > 1:
            ahead = walk.now + _MOMENTUM * (ahead - walk.now) + (1 - _MOMENTUM) * (walk.now - walk.before)
            ahead = ball.project(ahead, walk.origin)
        index, value, gradient = find_unfooled(model, ahead, loss, (walk.y, walk.target), passes=passes)
        if len(index) < len(ahead):
            x_adv[walk.place] = ahead  # those who stand get their own at the end
            walk, ahead = walk.at(index), ahead[index]
        walk = _arrive(walk, ahead, value, gradient)
        if number in checks:
            walk, last_check = _check(walk, enough=rho * (number - last_check)), number
    x_adv[walk.place] = walk.best
    fooled[walk.place] = False
    return Searched(x_adv, fooled)


def _begin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    start: Tensor,
    loss: AimedLoss,
    passes: int,
    eps: float,
) -> _Walk:
    index, value, gradient = find_unfooled(model, start, loss, (y, target), passes=passes)
    now = start[index]
    return _Walk(
        place=index,
        origin=x[index],
        y=y[index],
        target=target[index],
        now=now,
        before=now,
        value=value,
        gradient=gradient,
        best=now,
        best_value=value,
        best_gradient=gradient,
        size=torch.full_like(value, 2 * eps),
        rises=torch.zeros_like(index),
        best_at_check=value,
        halved=torch.ones_like(index, dtype=torch.bool),  # so that the first checkpoint counts rises only
    )


def _arrive(walk: _Walk, now: Tensor, value: Tensor, gradient: Tensor) -> _Walk:
    better = value > walk.best_value
    return walk._replace(
        now=now,
        before=walk.now,
        value=value,
        gradient=gradient,
        best=_choose(better, now, walk.best),
        best_value=torch.where(better, value, walk.best_value),
        best_gradient=_choose(better, gradient, walk.best_gradient),
        rises=walk.rises + (value > walk.value),
    )


def _check(walk: _Walk, *, enough: float) -> _Walk:
    """Half the step, from the best point, where few steps rose or (unless halved last time) none beat the best one."""
    halve = (walk.rises <= enough) | (~walk.halved & (walk.best_value == walk.best_at_check))
    return walk._replace(
        now=_choose(halve, walk.best, walk.now),
        gradient=_choose(halve, walk.best_gradient, walk.gradient),
        size=torch.where(halve, walk.size / 2, walk.size),
        rises=torch.zeros_like(walk.rises),
        best_at_check=walk.best_value,
        halved=halve,
    )


def _choose(first: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Per image."""
    return torch.where(first.reshape(-1, 1, 1, 1), yes, no)
