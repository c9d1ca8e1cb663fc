"""Evasion attacks. One file each: model, images, labels -> perturbed images in a threat model, mostly a ball.

An attack only proposes: `run` calls it in eval mode with frozen parameters, brings what it returns into the threat
model (`Threat.realise`: projects images, or clips and applies motions), counts success itself and keeps the worst
case over attacks and restarts. Any wrong prediction is a success. Attacks work on logits and draw from the generator
they are given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.ball import Ball, Eps, Norm, ball
from bascule.core.calling import verb_of
from bascule.core.given import Data, Labels
from bascule.core.threat import Threat


@catalog.contract("attack")
@catalog.component
class Evasion(ABC):
    """Settings of an evasion attack, in whatever threat model."""

    @property
    def uses_gradient(self) -> bool:
        """Whether the search differentiates the model; masked gradients mislead none that only asks for logits."""
        return True

    @property
    def mixed_precision(self) -> bool:
        """Whether the search takes its gradients in bfloat16 where that is asked for (`two_precisions`).

        Not so one that needs no gradients, or whose last steps are shorter than what bfloat16 can tell apart: it stays
        in float32.
        """
        return False

    @property
    def restarts(self) -> int:
        """Independent tries; a later one runs only on images that withstood the earlier ones."""
        return 1

    @property
    @abstractmethod
    def threat(self) -> Threat:
        """The threat model."""

    def parts(self) -> tuple[Evasion, ...]:
        """The attacks this one consists of, run in order, each on what the ones before it left."""
        return (self,)

    @abstractmethod
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """A proposal, one try: perturbed copies of `x`, or what else the threat model reads (`Threat.realise`).

        Args:
            model: From [0, 1] images to logits, in eval mode, parameters frozen.
            x: Floats in [0, 1], B x C x H x W.
            y: int64 labels to move away from, shape (B,).
            generator: On the device of `x`.
        """

    def __call__(self, model: nn.Module, x: Data, y: Labels | None = None, *, seed: int = 0, **about: Any) -> Tensor:
        """Adversarial copies of images: `bascule.perturb(model, x, y, self, seed=seed)`, with its arguments."""
        return verb_of("attack")(model, x, y, self, seed=seed, **about)


@catalog.component
class Attack(Evasion):
    """Settings of an evasion attack in a ball. One that does not work in all norms narrows the type of `norm`."""

    norm: Norm = "linf"
    """Norm of the ball: `linf`, `l2` or `l1`."""
    eps: Eps
    """Radius of the ball in [0, 1] pixel units."""
    restarts: Annotated[int, Ge(1)] = 1
    """Independent tries; a later one runs only on images that withstood the earlier ones."""

    @property
    def ball(self) -> Ball:
        """The threat model."""
        return ball(self.norm, self.eps)

    @property
    def threat(self) -> Ball:
        return self.ball
