"""Running an attack: what is guaranteed whatever the attack returns."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bascule.attacks.contract import Evasion
from bascule.attacks.two_precisions import Precision, TwoPrecisions
from bascule.core.gradients import WithoutGradient, takes_gradients
from bascule.core.inference import labels_of
from bascule.core.restore import evaluating, full_precision, untouched
from bascule.core.returned import returned


class Attacked(NamedTuple):
    """Worst case over the restarts of one attack."""

    x: Tensor
    """Perturbed images, in the threat model and in [0, 1]; where the attack failed, its last try."""
    prediction: Tensor
    """int64, shape (B,): what the model takes them for."""


def run_attack(
    model: nn.Module,
    attack: Evasion,
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    precision: Precision = "float32",
) -> Attacked:
    """Run `attack` on images the model gets right, each restart only on those that withstood the earlier ones.

    The model is in eval mode with frozen parameters and in full precision during the attack, and is found as it was
    afterwards. Proposals are brought into the threat model and [0, 1], a non-finite proposal counts as no perturbation,
    and success is measured by a pass of our own, in float32 whatever the search's precision.

    Args:
        model: From [0, 1] images to logits.
        attack: The search.
        x: Floats in [0, 1], B x C x H x W.
        y: int64 labels, shape (B,).
        generator: On the device of `x`.
        precision: `mixed` lets an attack that can (`Attack.mixed_precision`) take its gradients in bfloat16.

    Raises:
        RequestError: A logit of a perturbed image is not a number; a model that cannot be searched in two precisions;
            or images that are too small for the threat model.
    """
    attack.threat.check_size(x.shape[1:])
    if isinstance(model, TwoPrecisions):  # an ensemble hands its parts what it was given
        model, precision = model.model, "mixed"
    mixed = precision == "mixed" and attack.mixed_precision
    x = x.detach()
    best, prediction = x.clone(), y.clone()
    for _ in range(attack.restarts):
        alive = (prediction == y).nonzero().squeeze(1)
        if len(alive) == 0:
            break
        origin = x[alive]
        with untouched(model), full_precision(x.device):
            searched = TwoPrecisions(model) if mixed else model
            tried = try_once(searched, attack, origin, y[alive], generator=generator)
        with evaluating(model), torch.no_grad(), full_precision(x.device):
            prediction[alive] = labels_of(model(tried))
        best[alive] = tried
    return Attacked(best, prediction)


def try_once(model: nn.Module, attack: Evasion, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    """One try of `attack` on a model in the mode it is in: images in the threat model and in [0, 1], whatever it does.

    Arguments as for `run_attack`; parameters are frozen by the caller.
    """
    # A clone, so that an attack which works in place on its input does not carry the threat model along.
    proposal = _propose(model, attack, x.clone(), y, generator).detach().to(x)
    with torch.no_grad():
        return attack.threat.realise(proposal, x)


def to_its_end(attack: Evasion) -> Evasion:
    """The attack without stopping at an image's first mistake, where it has that setting (`stop_when_fooled`)."""
    if getattr(attack, "stop_when_fooled", False):
        return dataclasses.replace(attack, stop_when_fooled=False)  # type: ignore[call-arg]
    return attack


def _propose(model: nn.Module, attack: Evasion, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """The attack's try; on a model that fails on images that want a gradient, with the gradient taken for zero."""
    try:
        return returned(attack.perturb(model, x, y, generator=generator), Tensor, who=attack, method="perturb")
    except torch.OutOfMemoryError:
        raise
    except Exception:  # somebody's code may raise anything
        if takes_gradients(model, x[:2]):
            if isinstance(model, TwoPrecisions):
                model.check(x[:2])
            raise
    return returned(
        attack.perturb(WithoutGradient(model), x, y, generator=generator), Tensor, who=attack, method="perturb"
    )
