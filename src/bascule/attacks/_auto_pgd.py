"""The search of Auto-PGD: gradient ascent with momentum that halves its own steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from bascule.attacks._rows import choose
from bascule.attacks.losses import AimedLoss
from bascule.attacks.unfooled import find_unfooled
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


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What is known of every image that is still searched; the first dimension of all is S."""

    place: Tensor
    """Its place in the batch."""
    origin: Tensor
    y: Tensor
    target: Tensor
    now: Tensor
    gradient: Tensor
    """Of the loss at `now`."""
    best: Tensor
    """The iterate with the highest loss."""
    best_value: Tensor
    best_gradient: Tensor
    size: Tensor
    """Step size."""

    def at(self, index: Tensor) -> Self:
        """Of these images alone."""
        return replace(self, **{name: value[index] for name, value in vars(self).items()})

    def arrive(self, now: Tensor, value: Tensor, gradient: Tensor, /, **more: Tensor) -> Self:
        """After a step that led to `now`, where loss and gradient are these; `more` is what else changes."""
        better = value > self.best_value
        return replace(
            self,
            now=now,
            gradient=gradient,
            best=choose(better, now, self.best),
            best_value=torch.where(better, value, self.best_value),
            best_gradient=choose(better, gradient, self.best_gradient),
            **more,
        )

    def back(self, those: Tensor, **more: Tensor) -> Self:
        """Those images at their best point again; `more` is what else changes."""
        now, gradient = choose(those, self.best, self.now), choose(those, self.best_gradient, self.gradient)
        return replace(self, now=now, gradient=gradient, **more)


@dataclass(frozen=True, kw_only=True)
class _Walk(Walk):
    before: Tensor
    value: Tensor
    """Loss at `now`."""
    rises: Tensor
    """Steps since the last checkpoint that raised the loss."""
    best_at_check: Tensor
    """`best_value` at the last checkpoint."""
    halved: Tensor
    """Whether `size` was halved there."""


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
    tries: int = 1,
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
        tries: How many tries of each image lie in the batch, all first ones before all second ones. Once one fools the
            model, the later ones of the image end; the earlier ones may still come before it.
    """
    x_adv, fooled, ended = start.clone(), torch.ones_like(y, dtype=torch.bool), _Ended(tries, len(y), y.device)
    walk, last_check, checks = _begin(model, x, y, target, start, loss, passes, ball.eps, ended), 0, checkpoints(steps)
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
            kept = ended.without_later(walk.place, index)
            if kept is not None:
                index, value, gradient = index[kept], value[kept], gradient[kept]
            walk, ahead = walk.at(index), ahead[index]
        rises = walk.rises + (value > walk.value)
        walk = walk.arrive(ahead, value, gradient, before=walk.now, value=value, rises=rises)
        if number in checks:
            walk, last_check = _check(walk, enough=rho * (number - last_check)), number
    x_adv[walk.place] = walk.best
    fooled[walk.place] = False
    return Searched(x_adv, fooled)


class _Ended:
    """Which tries of an image have ended because one before them fooled the model."""

    def __init__(self, tries: int, count: int, device: torch.device) -> None:
        self._tries, self._images = tries, count // tries
        self._first = torch.full((self._images,), tries, device=device)
        """Of each image the first try that fooled the model."""

    def without_later(self, places: Tensor, standing: Tensor) -> Tensor | None:
        """Which of those standing go on: bool, of the shape of `standing`; None for all.

        Args:
            places: In the batch, of all that were looked at.
            standing: Who of these is not fooled, as positions in `places`.
        """
        if self._tries == 1:
            return None
        fell = torch.ones_like(places, dtype=torch.bool)
        fell[standing] = False
        gone, left = places[fell], places[standing]
        self._first.scatter_reduce_(0, gone % self._images, gone // self._images, "amin")
        return left // self._images < self._first[left % self._images]


def _begin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    start: Tensor,
    loss: AimedLoss,
    passes: int,
    eps: float,
    ended: _Ended,
) -> _Walk:
    index, value, gradient = find_unfooled(model, start, loss, (y, target), passes=passes)
    kept = ended.without_later(torch.arange(len(y), device=y.device), index)
    if kept is not None:
        index, value, gradient = index[kept], value[kept], gradient[kept]
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


def _check(walk: _Walk, *, enough: float) -> _Walk:
    """Half the step, from the best point, where few steps rose or (unless halved last time) none beat the best one."""
    halve = (walk.rises <= enough) | (~walk.halved & (walk.best_value == walk.best_at_check))
    return walk.back(
        halve,
        size=torch.where(halve, walk.size / 2, walk.size),
        rises=torch.zeros_like(walk.rises),
        best_at_check=walk.best_value,
        halved=halve,
    )
