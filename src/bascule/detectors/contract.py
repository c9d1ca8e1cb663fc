"""Test-time detectors. One file each: model, the defender's clean images -> how suspicious any further input is.

A detector never sees the truth: no trigger, no mask, no poisoned image, nobody's attack. `run` prepares it on one half
of the defender's images and sets its thresholds on the other half, asks it in eval mode with frozen parameters, and
checks what it says. An input is judged for itself: which others are judged beside it changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.calling import verb_of
from bascule.core.given import Data, Labels
from bascule.core.images import Images

if TYPE_CHECKING:
    from bascule.detectors.run import Guard

Suspicion = Callable[[Tensor], Tensor]
"""Images, floats in [0, 1], B x C x H x W -> floats (B,), finite: higher is more suspicious. What is drawn was drawn
before, so that the same image gets the same answer each time and in any batch, up to rounding."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A detector that has seen the model and the defender's images."""

    suspicion: Suspicion
    """What the detector says."""
    smooth: Suspicion | None = None
    """What an attacker who knows the detector lowers, where `suspicion` counts or compares and so has no useful
    gradient by the image: something differentiable that falls with it. None: `suspicion` itself."""


@catalog.contract("detect")
@catalog.component
class Detector(ABC):
    """Settings of a test-time detector."""

    @property
    def follows_gradients(self) -> bool:
        """Whether it differentiates the model by the images; on one without such gradients it is refused."""
        return False

    least_images: ClassVar[int] = 1
    """Fewest of the defender's images that it can be prepared on."""

    @abstractmethod
    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        """Look at the model and at clean images, draw what is to be drawn, and say how inputs are judged.

        Args:
            model: From [0, 1] images to logits, in eval mode, parameters frozen, now and whenever `suspicion` is
                called. Not to be changed; a changed copy may be made.
            images: Clean images of the defender with their true labels, on the model's device. Not to be changed.
            generator: On the device of the images.

        Raises:
            RequestError: The settings do not fit the model or the images.
        """

    def check_model(self, model: nn.Module, images: Images) -> None:  # noqa: B027  (most take any model)
        """Refuse, before any training, a model that the detector cannot work on; here none is.

        Args:
            model: As for `prepare`; a fresh one that is thrown away. Called without gradients.
            images: Two images, as for `prepare`; their labels mean nothing.

        Raises:
            RequestError: It has not what the method needs.
        """

    def __call__(self, model: nn.Module, x: Data, y: Labels | None = None, *, seed: int = 0) -> Guard:
        """Prepare it on a defender's images: `bascule.detect(model, x, y, self, seed=seed)`."""
        return verb_of("detect")(model, x, y, self, seed=seed)
