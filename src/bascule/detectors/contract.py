"""Test-time detectors. One file each: model, the defender's clean images -> how suspicious any further input is.

A detector never sees the truth: no trigger, no mask, no poisoned image, nobody's attack. `run` prepares it on one half
of the defender's images and sets its thresholds on the other half, asks it in eval mode with frozen parameters, and
checks what it says. An input is judged for itself: which others are judged beside it changes nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.apart import apart
from bascule.core.calling import verb_of
from bascule.core.catalog import name_of
from bascule.core.documented import documented
from bascule.core.errors import RequestError
from bascule.core.given import Data, Labels, unlabelled
from bascule.core.grid import Grid, TableCell
from bascule.core.images import Floats, Images
from bascule.core.inference import check_answers, chunks
from bascule.core.restore import untouched
from bascule.core.shown import Lines, Part, Shown
from bascule.core.text import count

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


CHUNK = 500
"""Images judged at a time."""


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


@documented
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Detected(Shown):
    """What a prepared detector says of images."""

    suspicion: Tensor
    """float32, shape (N,): higher is more suspicious."""
    guard: Guard
    """Who says so."""

    def refused(self, false_alarms: float = 0.05) -> Tensor:
        """bool, shape (N,): images above the threshold at which at most this share of clean ones is refused."""
        return self.suspicion > self.guard.threshold(false_alarms)

    def __str__(self) -> str:
        refused = (f"{int(self.refused(share).sum())} refused at {100 * share:g} % false alarms" for share in _SHOWN)
        return f"Detected: {count(len(self.suspicion), 'image')}, {', '.join(refused)}"

    def shown(self) -> Sequence[Part]:
        there = len(self.suspicion)
        refused = {share: int(self.refused(share).sum()) for share in _SHOWN}
        lines = [
            [*map(TableCell, (f"{100 * share:g} %", f"{many:,}", f"{100 * many / max(1, there):.1f}"))]
            for share, many in refused.items()
        ]
        about = f"{name_of(self.guard.detector)} on {count(there, 'image')}"
        return [Grid(["At false alarms"], ["Refused", "%"], lines), Lines([about])]


_SHOWN = (0.01, 0.05)
"""Shares of false alarms at which results are shown."""


@documented
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Guard(Shown):
    """A prepared detector beside its model, with what it says of clean images that it was not prepared on.

    Called with images it says how suspicious they are, and which are refused. The model is used as it is then: one that
    is trained on needs a guard of its own.
    """

    model: nn.Module
    detector: Detector
    calm: Tensor
    """Suspicion of the defender's other clean images, rising; float32, shape (M,)."""
    judge: Suspicion
    smooth: Suspicion
    """What an attacker who knows the detector lowers."""

    def suspicion(self, x: Tensor) -> Tensor:
        """How suspicious each image is, float32, shape (B,), without gradients.

        Raises:
            ValueError: The detector breaks its contract: shape, or a value that is not finite.
        """
        with untouched(self.model), torch.no_grad():
            parts = [self.judge(x[index]) for index in chunks(len(x), CHUNK, x.device)]
        return self.checked(torch.cat(parts) if parts else x.new_zeros(0), len(x))

    def checked(self, found: Tensor, wanted: int) -> Tensor:
        """What the detector said of `wanted` images, float32, without gradients.

        Raises:
            ValueError: As `suspicion`.
        """
        return _checked(found.detach().to(torch.float32), wanted, self.detector)

    def __call__(self, x: Data) -> Detected:
        """What is said of images: N x C x H x W, floats in [0, 1] or uint8, on any device; or a data set or loader.

        Raises:
            RequestError: A wrong type, shape or range, or the model cannot take images of this size, or answers one
                with NaN.
        """
        with apart(0, self.model):
            given = unlabelled(x).to(self.device)
            try:
                return Detected(suspicion=self.suspicion(given), guard=self)
            except RuntimeError as error:
                size = " x ".join(map(str, given.shape[1:]))
                raise RequestError(f"the model cannot take images of {size}: {error}", place=("x",)) from error
            except ValueError:
                check_answers(self.model, Floats(x=given, labels=torch.zeros(len(given), dtype=torch.int64)))
                raise

    def __copy__(self) -> Guard:
        return self

    def __reduce__(self) -> NoReturn:
        raise RequestError(
            "a guard cannot be pickled or copied, with what its detector has prepared: make it again, of the same "
            "model, images and `seed`; of what it says keep `suspicion`"
        )

    @property
    def device(self) -> torch.device:
        """Of the images that it was prepared on."""
        return self.calm.device

    def __str__(self) -> str:
        limits = (f"above {self.threshold(share):.4g} at {100 * share:g} % false alarms" for share in _SHOWN)
        return (
            f"Guard: {name_of(self.detector)}, thresholds from {count(len(self.calm), 'clean image')}\n"
            f"  refuses an image {', '.join(limits)}"
        )

    def shown(self) -> Sequence[Part]:
        lines = [[TableCell(f"{100 * share:g} %"), TableCell(f"{self.threshold(share):.4g}")] for share in _SHOWN]
        about = f"{name_of(self.detector)}, thresholds from {count(len(self.calm), 'clean image')}"
        return [Grid(["False alarms"], ["Refuses an image above"], lines), Lines([about])]

    def threshold(self, false_alarms: float) -> float:
        """The suspicion above which an image is refused, so that at most this share of clean ones is.

        Of M clean images the one of rank ceil((M + 1) (1 - share)): then a further clean image lies above it with at
        most that probability, over the draw of all of them (Vovk et al. 2005, conformal prediction). Infinite where M
        is too small for the share: nothing is refused. Minus infinite for a share of 1: everything is.
        """
        rank = math.ceil((len(self.calm) + 1) * (1 - false_alarms) - 1e-9)
        if rank < 1:
            return -math.inf
        return float(self.calm[rank - 1]) if rank <= len(self.calm) else math.inf


def _checked(found: Tensor, wanted: int, detector: Detector) -> Tensor:
    if found.shape != (wanted,):
        raise ValueError(f"{detector!r} gave suspicions of shape {tuple(found.shape)} for {count(wanted, 'image')}")
    broken = int((~found.isfinite()).sum())
    if broken:
        raise ValueError(f"{detector!r} gave {count(broken, 'suspicion')} not finite")
    return found
