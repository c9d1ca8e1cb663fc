"""Unlearning adversarial examples that the repaired and the original model share."""

from __future__ import annotations

import copy
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.attacks.ascent import ascend
from bascule.attacks.losses import Loss, cross_entropy
from bascule.core.ball import Eps, LinfOrL2, ball
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.restore import evaluating
from bascule.repairs.contract import FineTuning, Repaired
from bascule.training.contract import Objective
from bascule.training.search import search_mode

_OFFSET = 1e-6
"""Keeps the logarithm of "no doubt is left" finite."""


@component
class Sau(FineTuning):
    """Unlearns adversarial examples that fool the model being repaired and the original in the same way.

    Search, in the ball: raise beta_1 * (CE(f, y) + CE(f0, y)) / 2 - beta_2 * JS(f || f0), where an image leaves a term
    once it has done its part. Descent: the objective + weight * mean of -log(1 - p), p being the probability that the
    model gives to the label the original was fooled into, over images on which it was. Source: Wei et al. 2023 (Shared
    Adversarial Unlearning), with the terms and weights of their code, in which batch norm uses its running statistics
    throughout.

    Defaults: as in their code, where the cosine schedule is set up but never stepped, but for the batch (see
    `fine-tune`). Of 3e-3, 1e-3, 3e-4 and 1e-4, theirs, `lr` is the largest that costs networks without a backdoor at
    most two points of accuracy (see docs/guide/repairs.md). Weak on networks trained at large rates: raise it to see
    more.

    Departures: adversarial images stay in [0, 1]; in L2 the projected unit steps used everywhere here.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """`sgd` uses `momentum`; `adam` and `adamw` use (momentum, 0.999)."""
    lr: Annotated[float, Gt(0)] = 1e-4
    """Peak learning rate."""
    schedule: Literal["constant", "one-cycle", "cosine"] = "constant"
    """Learning rate over the steps: `cosine` falls from `lr` to 0, `one-cycle` rises first."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """L2 coefficient (decoupled for `adamw`) on weights of convolutions and linear layers, not on biases or norms."""
    norm: LinfOrL2 = "linf"
    """Norm of the ball: `linf` or `l2`."""
    eps: Eps = 0.2
    """Radius of the ball in [0, 1] pixel units."""
    steps: Annotated[int, Ge(1)] = 5
    """Gradient steps of the search."""
    step_size: Annotated[float, Gt(0)] = 0.2
    """Length of a step in [0, 1] pixel units."""
    beta_1: Annotated[float, Ge(0)] = 0.01
    """Weight of being misclassified."""
    beta_2: Annotated[float, Ge(0)] = 1.0
    """Weight of being misclassified alike by both models."""
    weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the shared examples in the descent."""

    wraps = True

    @property
    def follows_gradients(self) -> bool:
        return True

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        original = copy.deepcopy(model)
        shared = SharedExamples(settings=self, original=original)
        self.tune(model, images, generator=generator, objective=shared)
        return Repaired(model, {})


class _Both(nn.Module):
    """Logits of two models side by side, B x 2K."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], dim=1)


@component
class SharedExamples(Objective):
    """The descent's loss."""

    follows_gradients: ClassVar[bool] = True

    settings: Sau
    """Of the search and the weights."""
    original: nn.Module
    """The model before the repair, in eval mode."""

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        ours = self.settings
        region = ball(ours.norm, ours.eps)
        with search_mode(model), search_mode(self.original):
            with torch.no_grad():
                clean = (model(x).argmax(1), self.original(x).argmax(1))
            return ascend(
                _Both(model, self.original),
                x,
                y,
                ball=region,
                start=region.project(x + ours.eps, x),
                steps=ours.steps,
                step_size=ours.step_size,
                loss=shared_loss(clean, beta_1=ours.beta_1, beta_2=ours.beta_2),
                stop_when_fooled=False,
            )

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        with evaluating(model):
            perturbed = self.inputs(model, x, y, progress=progress, generator=generator)
            with torch.no_grad():
                before, fooled = self.original(x).argmax(1), self.original(perturbed).argmax(1)
            counts = (fooled != y) & (fooled != before)
            p = model(perturbed).softmax(1).gather(1, fooled.unsqueeze(1)).squeeze(1)
            unlearn = -(1 - p + _OFFSET).log()
            clean = self.settings.objective.loss(model, x, y, progress=progress, generator=generator)
            return clean + self.settings.weight * torch.where(counts, unlearn, 0).mean()


def shared_loss(clean: tuple[Tensor, Tensor], *, beta_1: float, beta_2: float) -> Loss:
    """What the search raises, per image, given both models' predictions on the clean images; logits are B x 2K."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        both = logits.chunk(2, dim=1)
        labels = [part.argmax(1) for part in both]
        fooled = [label != before for label, before in zip(labels, clean, strict=True)]
        alike = fooled[0] & fooled[1] & (labels[0] == labels[1])
        wrong = sum(torch.where(f, 0, cross_entropy(part, y)) for f, part in zip(fooled, both, strict=True)) / 2
        return beta_1 * wrong - beta_2 * torch.where(alike, 0, jensen_shannon(*both))

    return loss


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of softmax(first) and softmax(second), logits B x K, per image, in nats."""
    p, q = first.softmax(1).clamp_min(1e-8), second.softmax(1).clamp_min(1e-8)
    log_m = ((p + q) / 2).log()
    return (p * (p.log() - log_m) + q * (q.log() - log_m)).sum(1) / 2
