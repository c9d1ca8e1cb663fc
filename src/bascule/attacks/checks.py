"""Signs that a robust accuracy may not be trusted: of the model, and of an attack that left images standing.

Source: the checks of Carlini et al. 2019 ("On evaluating adversarial robustness", section 5), of Croce & Hein 2020
(AutoAttack's flags) and of Athalye et al. 2018 (signs of obfuscated gradients). What each sign means, and what to do,
is told in docs/flags.md.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from bascule.attacks.contract import Attack, Evasion
from bascule.attacks.losses import Loss, cross_entropy, margin
from bascule.attacks.run import run_attack
from bascule.core.gradients import gradient_of, takes_gradients
from bascule.core.restore import evaluating, untouched

SAMPLE = 64
"""Images looked at for each sign."""
_STEP = 0.1
"""Length of the probing step, as a share of the ball's radius."""


def signs_of_model(model: nn.Module, attack: Evasion, x: Tensor, y: Tensor) -> dict[str, float]:
    """What the model does that makes gradient attacks fail for the wrong reason.

    Args:
        model: From [0, 1] images to logits.
        attack: Gives the ball in which steps are tried, where its threat model is one.
        x: Floats in [0, 1], B x C x H x W, that the model gets right; at most `SAMPLE` of them are looked at.
        y: int64 labels, shape (B,).

    Returns:
        Shares of the images, each 0 on a plain model: `random` (two passes over the same image differ), `mixing` (the
        answer depends on the other images of the batch), `probabilities` (all outputs lie in [0, 1]),
        `no_gradient` (the gradient of the cross-entropy is zero or not finite), `no_rise` (a small step along the
        gradient of the margin does not raise it; 0 without a ball). Empty without images.
    """
    x, y = x[:SAMPLE].detach(), y[:SAMPLE]
    if len(x) == 0:
        return {}
    with evaluating(model), torch.no_grad():
        first, again = model(x), model(x)
        halves = torch.cat([model(part) for part in x.split(max(1, len(x) // 2))])
    scale = first.abs().amax().clamp_min(1e-12)
    random = _differs(first, again, scale)
    gradient = _gradient(model, x, y, cross_entropy)
    flat = gradient.flatten(1)
    dead = (flat == 0).all(1) | ~flat.isfinite().all(1)
    return {
        "random": _share(random),
        # A model that answers at random differs between any two passes; that is not mixing.
        "mixing": 0.0 if bool(random.any()) else _share(_differs(first, halves, scale)),
        "probabilities": _share(((first >= 0) & (first <= 1 + 1e-4)).all(1)),
        "no_gradient": _share(dead),
        "no_rise": _no_rise(model, attack, x, y, first) if isinstance(attack, Attack) and attack.eps else 0.0,
    }


def signs_of_attack(
    model: nn.Module, attack: Evasion, x: Tensor, y: Tensor, *, generator: torch.Generator
) -> dict[str, float]:
    """Whether images that withstood the attack also withstand twice as many steps, and a search without gradients.

    Args:
        model: From [0, 1] images to logits.
        attack: The attack they withstood.
        x: Those images; at most `SAMPLE` are looked at.
        y: Their labels.
        generator: On the device of `x`.

    Returns:
        Shares of the images that fell after all: `unconverged` (twice the steps, where the attack has steps),
        `black_box` (Square Attack with few queries, where the attack uses gradients). Empty without images.
    """
    x, y = x[:SAMPLE].detach(), y[:SAMPLE]
    ball = attack.ball if isinstance(attack, Attack) else None
    if len(x) == 0 or (ball is not None and ball.eps == 0):
        return {}
    shares = {}
    steps = getattr(attack, "steps", None)
    if steps is not None:
        once = {"restarts": 1} if attack.restarts > 1 else {}
        longer = dataclasses.replace(attack, steps=2 * steps, **once)  # type: ignore[call-arg]
        shares["unconverged"] = _share(run_attack(model, longer, x, y, generator=generator).prediction != y)
    if attack.uses_gradient and ball is not None:
        from bascule.attacks.square import Square

        search = Square(norm=ball.norm, eps=ball.eps, queries=_QUERIES)
        shares["black_box"] = _share(run_attack(model, search, x, y, generator=generator).prediction != y)
    return shares


_QUERIES = 100


def _no_rise(model: nn.Module, attack: Attack, x: Tensor, y: Tensor, logits: Tensor) -> float:
    """Share of the images whose margin a small step along its gradient does not raise."""
    slope = _gradient(model, x, y, margin)
    stepped = attack.ball.project(attack.ball.step(x, slope, _STEP * attack.eps), x)
    with evaluating(model), torch.no_grad():
        return _share(~(margin(model(stepped), y) - margin(logits, y) > 0))


def _gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    if not takes_gradients(model, x[:2]):
        return torch.zeros_like(x)
    with untouched(model):
        leaf = x.clone().requires_grad_(True)
        return gradient_of(loss(model(leaf), y).sum(), leaf)


def _differs(one: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    """Beyond rounding, which changes with the size of a batch."""
    return ((one - other).abs() > 1e-3 * scale).any(1)


def _share(which: Tensor) -> float:
    return float(which.double().mean())
