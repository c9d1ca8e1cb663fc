"""An attacker who knows the detector: wrong, and not suspicious."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.attacks.losses import margin
from bascule.core.ball import Ball
from bascule.core.gradients import gradient_of, takes_gradients
from bascule.core.inference import labels_of
from bascule.core.restore import untouched
from bascule.detectors.contract import Guard

STEPS = 25
"""Steps per try and image, at most."""
_TRAVEL = 5.0
"""Length of all steps of a try together, in radii of the ball."""
_ALONG = 1e-3
"""A gradient that has less than this share of its length off the other one is taken as it is."""


@torch.no_grad()
def evade(
    guard: Guard, x: Tensor, y: Tensor, *, ball: Ball, threshold: float, model: nn.Module | None = None
) -> Tensor:
    """Images in the ball that the model gets wrong and the detector does not refuse; where none was found, the least
    suspicious wrong one, or the image itself.

    Selective, then orthogonal projected gradient descent (Bryniarski et al. 2022, Evading Adversarial Example Detection
    Defenses with Orthogonal Projected Gradient Descent): each step raises the loss of an image that is still right, and
    lowers the suspicion of one that is wrong. In the first try that gradient is followed as it is. In the second one it
    is without its part along the other, so that what was reached is kept: on images that the first try got wrong and
    could not hide, since it goes nowhere that the first would not. Both from the image itself, as in their code.

    Departures: any iterate that succeeds counts and ends the search, theirs is the least suspicious of all steps; the
    loss is the margin, which has a gradient also where the cross-entropy is flat; steps shrink to nothing (25 a try,
    together five radii long; theirs are 100 of an eighth of the radius); where one gradient lies along the other it is
    followed as it is.

    Args:
        guard: The prepared detector and its model.
        x: Floats in [0, 1], B x C x H x W. All at once: a suspicion may need many passes for each.
        y: int64, shape (B,): what `model` shall no longer take them for.
        ball: Where to stay, around `x`.
        threshold: The suspicion above which an image is refused.
        model: Another view of the guard's model (`attack.toward`); by default that model.
    """
    model = guard.model if model is None else model
    best, lowest = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
    left = torch.ones(len(x), dtype=torch.bool, device=x.device)
    with untouched(guard.model):
        if not len(x) or not takes_gradients(guard.model, x[:2]):
            return best
        for orthogonal in (False, True):
            places = (left & (~lowest.isinf() if orthogonal else True)).nonzero().squeeze(1)
            current = x[places]
            for step in range(STEPS + 1):
                if not len(places):
                    break
                wrong, direction, suspicion = _look(guard, model, current, y[places], orthogonal)
                suspicion = suspicion.where(wrong, torch.inf).to(lowest)
                better = suspicion < lowest[places]
                best[places[better]], lowest[places[better]] = current[better], suspicion[better]
                left[places] = ~(wrong & (suspicion <= threshold))
                size = 2 * _TRAVEL * ball.eps / STEPS * (1 - step / STEPS)
                current = ball.project(ball.step(current, direction, size), x[places])
                current, places = current[left[places]], places[left[places]]
        return ball.realise(best, x)


def _look(guard: Guard, model: nn.Module, x: Tensor, y: Tensor, orthogonal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Which images are wrong, which way each is to go, and how suspicious those are that are wrong.

    A suspicion costs many passes: only that of the wrong ones is asked for, unless the ways are to be orthogonal, and
    once where it is itself what is lowered.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        logits = model(leaf)
        loss = gradient_of(margin(logits, y).sum(), leaf).nan_to_num()
    wrong = labels_of(logits) != y
    judged = torch.ones_like(wrong) if orthogonal else wrong
    slope, suspicion = torch.zeros_like(loss), torch.zeros(len(x), device=x.device)
    if bool(judged.any()):
        with torch.enable_grad():
            leaf = x[judged].detach().requires_grad_(True)
            lowered = guard.smooth(leaf)
            slope[judged] = gradient_of(lowered.sum(), leaf).nan_to_num()
        if guard.smooth is guard.judge:
            suspicion[judged] = guard.checked(lowered, len(leaf))
        elif bool(wrong.any()):
            suspicion[wrong] = guard.suspicion(x[wrong])
    rise, fall = (_off(loss, slope), -_off(slope, loss)) if orthogonal else (loss, -slope)
    return wrong, torch.where(wrong.reshape(-1, 1, 1, 1), fall, rise), suspicion


def _off(gradient: Tensor, other: Tensor) -> Tensor:
    """The part of each image's gradient that is orthogonal to the other one."""
    flat, along = gradient.flatten(1).double(), other.flatten(1).double()
    length = along.square().sum(1, keepdim=True)
    share = (flat * along).sum(1, keepdim=True) / length.where(length > 0, 1.0)
    rest = flat - share * along
    keep = rest.norm(dim=1, keepdim=True) > _ALONG * flat.norm(dim=1, keepdim=True)
    return rest.where(keep, flat).to(gradient).reshape(gradient.shape)
