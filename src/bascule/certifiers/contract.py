"""Certified bounds. One file each: model, images, labels -> a radius within which the prediction provably stays.

A certifier only claims: `run` calls it in eval mode with frozen parameters, on images the model gets right, and takes
nothing that is not finite. Bounds are lower bounds of the true radius; an attack gives upper bounds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.ball import Eps, LinfOrL2


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
