"""Linear pictures of a decision boundary and the shortest way to it: inside `deepfool` and `fab`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bascule.core.ball import Ball, Norm
from bascule.core.gradients import gradient_of


def likeliest_wrong(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The `count` classes with the largest logits except the label's, largest first; B x T, T at most K - 1."""
    wrong = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


_TOGETHER = 96
"""Images in a pass up to which searches towards several classes share it."""


def together(images: int, targets: int) -> int:
    """Towards how many of the targets that are left to search at once: several where few images stand.

    A pass over 36 images takes half the time of nine passes over 4 (mnist-paper), one over 250 no less than its parts.
    """
    return max(1, min(targets, _TOGETHER // max(1, images)))


def gaps(model: nn.Module, x: Tensor, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Each target's logit minus the label's (B x T) and its gradient (B x T x C x H x W), from one forward pass.

    A gap is negative on the label's side of the boundary between the two classes.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(x)
        leads = logits.gather(1, targets) - logits.gather(1, y.unsqueeze(1))
        sums = leads.sum(0).unbind()
    # One pass back per target: a batched one needs T times the memory and, out of the cache, half as much time again.
    gradient = [gradient_of(each, x, retain_graph=True) for each in sums]
    return leads.detach(), torch.stack(gradient, 1)


def nearest(gap: Tensor, gradient: Tensor, *, ball: Ball) -> tuple[Tensor, Tensor]:
    """Of each image's T linear boundaries the nearest one in the ball's norm: gap (B,) and gradient (B x C x H x W)."""
    if gap.shape[1] == 1:
        return gap[:, 0], gradient[:, 0]
    dual = (gradient * ball.direction(gradient.flatten(0, 1)).view_as(gradient)).flatten(2).sum(2)
    index = (gap.abs() / dual.clamp_min(torch.finfo(gap.dtype).tiny)).argmin(1)
    rows = torch.arange(len(gap), device=gap.device)
    return gap[rows, index], gradient[rows, index]


def to_plane(gap: Tensor, gradient: Tensor, *, ball: Ball) -> Tensor:
    """The shortest delta with gap + <gradient, delta> = 0; no delta where the gradient is zero.

    Args:
        gap: Shape (B,).
        gradient: B x C x H x W.
        ball: Its norm is what is short.
    """
    direction = ball.direction(gradient)
    dual = (gradient * direction).flatten(1).sum(1)
    length = torch.where(dual > 0, -gap / dual.clamp_min(torch.finfo(gap.dtype).tiny), 0)
    return direction * length.reshape(-1, 1, 1, 1)


def to_plane_in_box(x: Tensor, gap: Tensor, gradient: Tensor, *, ball: Ball) -> Tensor:
    """As `to_plane` for images x (B x C x H x W, in [0, 1]) with x + delta in [0, 1] (Croce & Hein 2020, eq. 4 and 5).

    Where the plane misses the box, delta leads to the box's corner nearest to it.
    """
    return _IN_BOX[ball.norm](x, gap, gradient, ball)


def _together_to_plane(x: Tensor, gap: Tensor, gradient: Tensor, ball: Ball) -> Tensor:
    """In Linf and L2: every entry along the steepest direction by one common length, but not beyond the box.

    Entries that reach the box are found by Newton's method on the length, which stops at the exact solution: what the
    moved entries gain is a concave, piecewise linear function of the length, so no step overshoots.
    """
    # Masks are 0 and 1 of the images' type, and `lerp` with such a weight is a choice: `torch.where` takes twenty times
    # as long.
    direction = -ball.direction(gradient) * gap.sign().reshape(-1, 1, 1, 1)
    sign = direction.sign()
    room = torch.lerp(x, 1 - x, sign.clamp_min(0))
    speed, slope = direction.abs(), gradient.abs()
    at_end, rate, need = slope * room, slope * speed, gap.abs()
    stopped = torch.zeros_like(x)
    while True:
        left = (need - (at_end * stopped).flatten(1).sum(1)).clamp_min(0)
        total = (rate * (1 - stopped)).flatten(1).sum(1)
        # Without entries left to move, only those stay whose speed is zero: any finite length will do.
        length = (left / total).nan_to_num(0)
        move = length.reshape(-1, 1, 1, 1) * speed
        further = torch.maximum(stopped, (move - room).sign_().clamp_min_(0))
        if torch.equal(further, stopped):
            return sign * torch.lerp(move, room, stopped)
        stopped = further


def _one_by_one_to_plane(x: Tensor, gap: Tensor, gradient: Tensor, ball: Ball) -> Tensor:
    """In L1: entry after entry to the border of the box, the steepest first, until the gap is closed."""
    gradient = gradient.nan_to_num()
    sign = -(gradient.sign() * gap.sign().reshape(-1, 1, 1, 1)).flatten(1)
    room = torch.where(sign > 0, 1 - x.flatten(1), x.flatten(1)) * sign.abs()
    slope, order = gradient.abs().flatten(1).sort(1, descending=True)
    room = room.gather(1, order)
    gain = slope * room
    left = (gap.abs().unsqueeze(1) - (gain.cumsum(1) - gain)).clamp_min(0)
    # Without a slope there is nothing to divide by, nor any room.
    move = torch.minimum(room, left / slope.clamp_min(torch.finfo(x.dtype).tiny))
    return (sign * torch.zeros_like(sign).scatter(1, order, move)).reshape(x.shape)


_IN_BOX: dict[Norm, Callable[[Tensor, Tensor, Tensor, Ball], Tensor]] = {
    "linf": _together_to_plane,
    "l2": _together_to_plane,
    "l1": _one_by_one_to_plane,
}
