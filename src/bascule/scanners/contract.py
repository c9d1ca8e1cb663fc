"""Model scanners, after training. One file each: model, the defender's clean images -> verdict and recovered triggers.

A scanner never sees the truth: no trigger, no mask, no poisoned image. `run` calls it in eval mode with frozen
parameters, measures the success of every recovered trigger itself and counts the passes through the model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.calling import verb_of
from bascule.core.documented import documented
from bascule.core.errors import RequestError
from bascule.core.given import Data, Labels
from bascule.core.grid import Grid, TableCell
from bascule.core.images import Images, as_bytes
from bascule.core.shown import Lines, Part, Picture, Pictures, Shown
from bascule.core.tiles import over_grey

_SHOWN = 10
"""Classes that are shown."""


class Passes(NamedTuple):
    """How many images went through the model."""

    forward: int
    """Images through the forward pass."""
    backward: int
    """Images through the backward pass to the input."""


@documented
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Scan(Shown):
    """What a scanner says about a model with K classes. Tensors live on the images' device."""

    anomaly: Tensor
    """Floats, shape (K,): how far each class stands out, higher is more suspicious; NaN where it was not examined."""
    threshold: float
    """A class is a suspect when its anomaly is above this."""
    pattern: Tensor | None = None
    """Floats in [0, 1], K x C x H x W: the picture of each class's recovered trigger; None where none is recovered."""
    mask: Tensor | None = None
    """Floats in [0, 1], K x 1 x H x W or K x C x H x W: how far the picture covers each pixel."""
    details: Mapping[str, Tensor] = field(default_factory=dict)
    """Values per class, shape (K,). `success`, where triggers are recovered: the share of images of other classes that
    the trigger moves to the class, measured by `run` on all images. The others are the scanner's own."""
    assumed: int | None = None
    """The class that was given as the target: it is the suspect, and nothing was tested."""
    passes: Passes | None = None
    """Images through the model during the scan, counted by `run`; the measurement of `success` is not in it."""

    @property
    def suspects(self) -> tuple[int, ...]:
        """The classes taken for backdoor targets, most suspicious first."""
        if self.assumed is not None:
            return (self.assumed,)
        order = self.anomaly.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
        return tuple(order[self.anomaly[order] > self.threshold].tolist())

    def stamp(self, x: Tensor, label: int | Tensor) -> Tensor:
        """`x` with the trigger recovered for class `label` on it: x * (1 - mask) + mask * pattern.

        Args:
            x: Floats in [0, 1], B x C x H x W.
            label: One class for all images, or int64 classes of shape (B,).

        Raises:
            RequestError: The scanner recovers no trigger, or found none for a class asked for.
        """
        if self.pattern is None or self.mask is None:
            raise RequestError(
                "this scanner recovers no trigger to stamp; use one that does, for example neural-cleanse"
            )
        pattern, mask = self.pattern[label].to(x), self.mask[label].to(x)
        if not bool(mask.isfinite().all()):
            raise RequestError(f"no trigger was recovered for class {label}: it was not examined")
        return torch.lerp(x, pattern.expand_as(x), mask.expand_as(x))

    def __str__(self) -> str:
        said = "none" if not self.suspects else ", ".join(map(str, self.suspects))
        said += " (it was given)" if self.assumed is not None else ""
        order = self.anomaly.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)[:5].tolist()
        more = len(self.anomaly) - len(order)
        lines = [f"Scan: suspects {said}; a suspect's anomaly is above {self.threshold:.3g}", *map(self._line, order)]
        return "\n  ".join([*lines, *([f"and {more} more with less"] if more else [])])

    def shown(self) -> Sequence[Part]:
        order = self.anomaly.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)[:_SHOWN].tolist()
        lines = [self._cells(label) for label in order]
        more = len(self.anomaly) - len(order)
        below = [
            f"A suspect's anomaly is above {self.threshold:.3g}.",
            *([f"And {more} more with less."] if more else []),
        ]
        if self.assumed is not None:
            below = ["The class was given, and nothing was tested."]
        labels = [label for label in (self.suspects or tuple(order[:1]))[:_SHOWN] if self._has_trigger(label)]
        pictures = [Picture(self._picture(label), f"trigger recovered for class {label}") for label in labels]
        columns = ["Anomaly", "Its trigger moves %"]
        return [Grid(["Class"], columns, lines), Lines(below), Pictures(pictures)]

    def _cells(self, label: int) -> list[TableCell]:
        anomaly = float(self.anomaly[label])
        success = float(self.details["success"][label]) if "success" in self.details else math.nan
        name = f"{label}, suspect" if label in self.suspects else f"{label}"
        numbers = ("not examined" if math.isnan(anomaly) else f"{anomaly:.3g}", f"{100 * success:.0f}")
        return [TableCell(name), TableCell(numbers[0]), TableCell("" if math.isnan(success) else numbers[1])]

    def _has_trigger(self, label: int) -> bool:
        return self.pattern is not None and self.mask is not None and bool(self.mask[label].isfinite().all())

    def _picture(self, label: int) -> Image.Image:
        assert self.pattern is not None
        assert self.mask is not None
        pattern, mask = (as_bytes(part[label].float()).cpu().numpy() for part in (self.pattern, self.mask))
        return over_grey(pattern, mask)

    def _line(self, label: int) -> str:
        anomaly = float(self.anomaly[label])
        if math.isnan(anomaly):
            return f"class {label}: not examined"
        success = float(self.details["success"][label]) if "success" in self.details else math.nan
        moved = "" if math.isnan(success) else f", its trigger moves {100 * success:.0f} % of the other images"
        return f"class {label}: anomaly {anomaly:.3g}{moved}"


@catalog.contract("scan")
@catalog.component
class Scanner(ABC):
    """Settings of a model scanner."""

    follows_gradients: ClassVar[bool] = True
    """Whether the search differentiates the model by the images; on one without such gradients it is refused."""

    @abstractmethod
    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        """The verdict on `model`: an anomaly for every class, and the recovered triggers if the method gives any.

        Args:
            model: From [0, 1] images to logits, in eval mode, parameters frozen, gradients enabled.
            images: The defender's clean images with their true labels, on the model's device.
            generator: On the device of the images.

        Raises:
            RequestError: The scan cannot work with these images.
        """

    def check_model(self, model: nn.Module, images: Images) -> None:  # noqa: B027  (most take any model)
        """Refuse, before any training, a model that `scan` cannot work on; here none is.

        Args:
            model: As for `scan`; a fresh one that is thrown away. Called without gradients.
            images: Two images, as for `scan`; their labels mean nothing.

        Raises:
            RequestError: It has not what the method needs.
        """

    def __call__(self, model: nn.Module, x: Data, y: Labels | None = None, *, seed: int = 0) -> Scan:
        """Which classes look like a backdoor's target: `bascule.scan(model, x, y, self, seed=seed)`."""
        return verb_of("scan")(model, x, y, self, seed=seed)
