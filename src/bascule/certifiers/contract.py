"""Certified bounds. One file each: model, images, labels -> a radius within which the prediction provably stays.

A certifier only claims: `run` calls it in eval mode with frozen parameters, on images the model gets right, and takes
nothing that is not finite. Bounds are lower bounds of the true radius; an attack gives upper bounds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.ball import Eps, LinfOrL2
from bascule.core.calling import verb_of
from bascule.core.documented import documented
from bascule.core.given import Data, Labels
from bascule.core.grid import Grid, TableCell
from bascule.core.shown import Part, Shown
from bascule.core.text import count, radius


@documented
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Certified(Shown):
    """What one certifier proves about each image."""

    radius: Tensor
    """Floats, shape (N,): the prediction stays right within this radius; 0 where nothing is proved."""
    right: Tensor
    """bool, shape (N,): the model gets the image right as it is."""
    certified: Tensor
    """bool, shape (N,): right, and the radius reaches the one asked for."""
    eps: float
    """The radius asked for."""

    def accuracy_at(self, eps: float) -> float:
        """Share of all images that are right and proved to stay so within this radius; at 0 plain accuracy.

        A bound that answers yes or no for the radius asked for knows nothing of larger ones: there it is 0.
        """
        return float((self.right & (self.radius >= eps)).double().mean())

    def __str__(self) -> str:
        proved, right, there = int(self.certified.sum()), int(self.right.sum()), len(self.radius)
        return (
            f"Certified: {count(there, 'image')}, {right} right, {proved} of them certified at eps {radius(self.eps)}\n"
            f"  certified accuracy {100 * proved / max(1, there):.1f} %, largest radius "
            f"{float(self.radius.max()) if there else 0:.4g}"
        )

    def shown(self) -> Sequence[Part]:
        there = len(self.radius)
        counts = {
            "right": int(self.right.sum()),
            f"right, and certified at eps {radius(self.eps)}": int(self.certified.sum()),
        }
        lines = [
            [TableCell(what), TableCell(f"{many:,}"), TableCell(f"{100 * many / max(1, there):.1f}")]
            for what, many in counts.items()
        ]
        return [Grid([count(there, "image")], ["Number", "%"], lines)]


@catalog.contract("certify")
@catalog.component
class Certifier(ABC):
    """Settings of a certified bound."""

    of_model: ClassVar[bool] = True
    """Whether the bound is about the model itself, so that no attack within it can succeed.

    Smoothing certifies another classifier, the majority vote over noisy copies: an attack on the model may beat that.
    """

    norm: LinfOrL2 = "linf"
    """Norm of the ball: `linf` or `l2`."""
    eps: Eps
    """Radius asked for, in [0, 1] pixel units."""

    @abstractmethod
    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """For each image a radius within which the prediction provably stays `y`; 0 where none is known.

        Bounds that answer yes or no for one radius (`interval`, `crown-ibp`) give `eps` or 0: a lower bound of what
        could be certified. Floats of the images' type, shape (B,). Called without gradients.

        Args:
            model: From [0, 1] images to logits, in eval mode, parameters frozen.
            x: Floats in [0, 1], B x C x H x W.
            y: int64 labels, shape (B,).
            generator: On the device of `x`.

        Raises:
            RequestError: The bound cannot follow an operation of the model.
        """

    def check_model(self, model: nn.Module, x: Tensor) -> None:  # noqa: B027  (most take any model)
        """Refuse, before any work, a model that `radius` would refuse; here none is. `run.check_certifier` calls it.

        Args:
            model: As for `radius`.
            x: One image or two, as for `radius`.

        Raises:
            RequestError: The bound cannot follow an operation of the model.
        """

    def __call__(self, model: nn.Module, x: Data, y: Labels | None = None, *, seed: int = 0) -> Certified:
        """What is proved about each image: `bascule.certify(model, x, y, self, seed=seed)`."""
        return verb_of("certify")(model, x, y, self, seed=seed)
