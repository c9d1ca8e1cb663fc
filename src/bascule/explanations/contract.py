"""Explanations. One file each: what a model looks at in an image, and how its answers depend on frequency.

A heat map says how much each pixel matters, a spectrum what happens at each spatial frequency. `run` calls both in
eval mode with frozen parameters; they draw from the generator they are given. A label is an argument: the true one to
see what an answer rests on, the backdoor's target to see what leads there. A projection places the features of many
images in the plane.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.projection import Rows


@catalog.contract("explain")
@catalog.component
class HeatMap(ABC):
    """Settings of a method that says how much each pixel of an image matters for the model's score of a label."""

    follows_gradients: ClassVar[bool] = False
    """Whether it differentiates the model by the images; on one without such gradients it is refused."""

    @abstractmethod
    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """How much each pixel matters: floats >= 0, B x H x W, of the images' type.

        Not normalised: only the shares within one image can be compared between images, models and methods. What is
        taken as the score, the label's logit or the cross-entropy with it, is the method's to say.

        Args:
            model: From [0, 1] images to logits, in eval mode, parameters frozen.
            x: Floats in [0, 1], B x C x H x W.
            y: int64 labels to explain, shape (B,).
            generator: On the device of `x`.

        Raises:
            RequestError: The method does not fit the model, or needs a package that is missing.
        """

    def check_model(self, model: nn.Module, x: Tensor) -> None:  # noqa: B027  (most take any model)
        """Refuse, before any training, a model that `heat` cannot work on; here none is.

        Args:
            model: As for `heat`; a fresh one that is thrown away. Called without gradients.
            x: Two images, as for `heat`.

        Raises:
            RequestError: As `heat`.
        """


@catalog.contract("explain")
@catalog.component
class Spectrum(ABC):
    """Settings of a method that says how a model's answers depend on spatial frequency."""

    @abstractmethod
    def frequencies(self, height: int, width: int) -> Tensor:
        """The F frequencies that are looked at in images of this size, in cycles per pixel: float64, on the CPU.

        Shape F x 2 (vertical and horizontal), or F x 1 where only the distance from zero counts.
        """

    @abstractmethod
    def response(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """One number per image and frequency: floats, B x F, NaN where there is none. The method says what it is.

        Arguments as in `HeatMap.heat`; `y` are the true labels.
        """


@catalog.contract("explain")
@catalog.component
class Projection(ABC):
    """Settings of a method that places the features of images in the plane."""

    layer: str | None = None
    """Module whose output is projected, named as in the model; by default the input of the last linear layer."""

    @abstractmethod
    def project(self, rows: Rows | Tensor, *, generator: torch.Generator) -> NDArray[np.float32]:
        """Coordinates in the plane, N x 2, finite; zeros along a direction in which the rows do not vary.

        Args:
            rows: N feature vectors, as a tensor N x D or as rows that are read in passes (`core.features`).
            generator: On the device of the rows.

        Raises:
            RequestError: The method's package is missing.
        """
