"""The search of Auto-PGD in L1: steps along few entries, fewer and shorter ones as the perturbation gets sparse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bascule.attacks._auto_pgd import Searched, Walk
from bascule.attacks.losses import AimedLoss
from bascule.attacks.two_precisions import TwoPrecisions, search_pass
from bascule.core.ball import Ball, L1Ball, sparse_direction
from bascule.core.gradients import gradient_of

_WIDER = 3
"""The search begins in a ball of so many times the radius, and goes on in one of twice the radius."""
_THINNER = 1.5
"""A step moves so many times fewer entries than the best perturbation has, and is shortened by as much."""
_SPARSER = 0.95
"""Share of the entries below which the best perturbation counts as sparser than at the last check."""
_SHORTEST = 10
"""The shortest step is the radius over this."""


def start_in_l1(ball: Ball, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Gaussian noise brought into the widest ball: a few random pixels."""
    noise = torch.empty_like(x).normal_(generator=generator)
    return L1Ball(eps=_WIDER * ball.eps).project(x + noise, x)


@dataclass(frozen=True, kw_only=True)
class _Walk(Walk):
    moved: Tensor
    """Entries that a step moves."""
    entries: Tensor
    """Entries in which `best` differed from the image at the last check."""


def auto_pgd_l1(
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
    """Croce & Hein 2021 ("Mind the box"), section 3: 30 % of the steps in a ball of three times the radius, 30 % in one
    of twice the radius, the rest in the ball itself, each from the best point of the one before, projected.

    A step goes along the signs of the largest entries of the gradient, two thirds as many as the best perturbation has,
    without momentum. Every 4 % of the steps: where the best perturbation got sparser, the step is as long as the radius
    again and goes on from the best point; elsewhere it is shortened by a third, down to a tenth of the radius. In the
    last ball an image leaves the batch at its first misclassified iterate.

    Arguments as for `auto_pgd`, from `start_in_l1`; `rho` has no meaning here, and all `tries` are made to their end.
    """
    last = max(1, steps - 2 * round(0.3 * steps))
    first = (steps - last + 1) // 2
    for wider, number in ((_WIDER, first), (2, steps - last - first)):
        if number:
            region = L1Ball(eps=wider * ball.eps)
            start = _search(model, x, y, region, start, number, loss, target, passes, leave=False).x
    return _search(model, x, y, ball, start, last, loss, target, passes, leave=True)


def _search(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    start: Tensor,
    steps: int,
    loss: AimedLoss,
    target: Tensor,
    passes: int,
    *,
    leave: bool,
) -> Searched:
    """The search in one ball; without `leave` nobody's end is noticed."""
    x_adv, done = ball.project(start, x), torch.zeros_like(y, dtype=torch.bool)
    fooled, value, gradient = _look(model, x_adv, y, target, loss, passes)
    entries = _entries(x_adv, x)
    walk = _Walk(
        place=torch.arange(len(y), device=y.device), origin=x, y=y, target=target, now=x_adv, gradient=gradient,
        best=x_adv, best_value=value, best_gradient=gradient, size=torch.full_like(value, ball.eps),
        moved=_thinner(entries), entries=entries,
    )  # fmt: skip
    between = max(1, int(0.04 * steps))
    for number in range(steps + 1):
        if number:
            ahead = walk.now + sparse_direction(walk.gradient, walk.moved) * walk.size.reshape(-1, 1, 1, 1)
            ahead = ball.project(ahead, walk.origin)
            fooled, value, gradient = _look(model, ahead, walk.y, walk.target, loss, passes)
            walk = walk.arrive(ahead, value, gradient)
        if leave and bool(fooled.any()):
            x_adv[walk.place[fooled]], done[walk.place[fooled]] = walk.now[fooled], True
            walk = walk.at((~fooled).nonzero().squeeze(1))
        if len(walk.place) == 0:
            break
        if number and number % between == 0:
            walk = _check(walk, ball.eps)
    x_adv[walk.place] = walk.best
    return Searched(x_adv, done)


def _look(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, loss: AimedLoss, passes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Which images are fooled in all passes, and the mean loss of each with its gradient."""
    forward = search_pass(model) if passes == 1 else model
    fooled, total, gradient = torch.ones_like(y, dtype=torch.bool), x.new_zeros(len(x)), torch.zeros_like(x)
    for _ in range(passes):
        leaf = x.detach().requires_grad_(True)
        logits = forward(leaf)
        value = loss(logits, y, target)
        gradient += gradient_of(value.sum(), leaf) / passes
        total += value.detach() / passes
        rough = isinstance(model, TwoPrecisions) and passes == 1
        fooled &= model.fooled(x, logits.detach(), y) if rough else logits.detach().argmax(1) != y  # type: ignore[operator]
    return fooled, total, gradient


def _check(walk: _Walk, eps: float) -> _Walk:
    entries = _entries(walk.best, walk.origin)
    sparser = entries < _SPARSER * walk.entries
    size = torch.where(sparser, eps, (walk.size / _THINNER).clamp_min(eps / _SHORTEST))
    return walk.back(sparser, size=size, moved=_thinner(entries), entries=entries)


def _entries(x: Tensor, origin: Tensor) -> Tensor:
    """In how many entries each image differs from its origin."""
    return (x != origin).flatten(1).sum(1)


def _thinner(entries: Tensor) -> Tensor:
    """How many entries a step moves, at least one."""
    return (entries / _THINNER).ceil().long().clamp_min(1)
