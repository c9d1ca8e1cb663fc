"""Who is stamped and with which label: planting a trigger in a training set, and stamping test images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.core.images import Images, as_bytes, as_floats
from bascule.poison import Trigger

_CHUNK = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """Which training images were poisoned. Goes to the record and the measures, never to a defence."""

    ids: Tensor
    """int64, ids of the stamped images, ascending."""
    labels_before: Tensor
    """int64, their labels in the unpoisoned set."""
    labels_after: Tensor
    """int64, their labels in the poisoned set."""


@component
class Poison:
    """A trigger, who gets it, and which label.

    Clean-label poison stamps images of the target class and keeps their label (Turner et al. 2019; Weng, Lee & Wu
    2020). Dirty-label poison stamps images of the other classes and relabels them to the target (Gu et al. 2019).
    """

    trigger: Annotated[Trigger, Of("poison")]
    """What is stamped on the chosen training images."""
    target: Annotated[int, Ge(0)]
    """Label number of the class that triggered images are meant to be taken for."""
    label: Literal["clean", "dirty"] = "clean"
    """`clean`: stamp images of the target class; `dirty`: stamp images of other classes and relabel them."""
    rate: Annotated[float, Interval(ge=0, le=1)]
    """Poisoned share; 0 plants nothing, a control."""
    rate_of: Literal["all", "target"] = "all"
    """What `rate` is a share of: the whole training set, or as many images as the target class has."""
    test_trigger: Annotated[Trigger | None, Of("poison")] = None
    """What is stamped on test images; by default `trigger`."""

    @property
    def shown(self) -> Trigger:
        """The trigger stamped on test images."""
        return self.test_trigger or self.trigger

    def count(self, labels: Tensor, classes: int) -> int:
        """Number of images that will be stamped, given the training labels.

        Raises:
            RequestError: No such class, or more images asked for than there are; names the largest possible rate.
        """
        if self.target >= classes:
            raise RequestError(f"there is no class {self.target}; the classes are 0..{classes - 1}", place=("target",))
        in_target = int((labels == self.target).sum())
        available = in_target if self.label == "clean" else len(labels) - in_target
        whole = len(labels) if self.rate_of == "all" else in_target
        if whole == 0 and self.rate > 0:
            raise RequestError(f"no training image is of the target class {self.target}", place=("target",))
        count = round(self.rate * whole)
        if count > available:
            who = "the target class has" if self.label == "clean" else "the other classes have"
            raise RequestError(
                f"rate {self.rate} of {whole} images is {count}, but {who} only {available}. "
                f"The largest possible rate is {_rounded_down(available / whole):g}.",
                place=("rate",),
            )
        if self.rate > 0 and count == 0:
            raise RequestError(
                f"rate {self.rate} of {whole} images rounds to no image. A rate of {1 / whole:.2g} poisons one; "
                f"0 plants nothing.",
                place=("rate",),
            )
        return count

    def check(self, size: tuple[int, int, int], labels: Tensor, classes: int) -> None:
        """Refuse settings that cannot work on images of this size with these training labels."""
        self.count(labels, classes)
        for key in ("trigger", "test_trigger"):
            trigger = getattr(self, key)
            if trigger is not None:
                try:
                    trigger.stamp(torch.zeros(1, *size), generator=torch.Generator().manual_seed(0))
                except RequestError as error:
                    raise error.at(key) from None

    def plant(self, images: Images, *, generator: torch.Generator) -> tuple[Images, Truth]:
        """The poisoned training set, and which images were changed. The images are drawn at random."""
        count = self.count(images.labels, len(images.classes))
        eligible = images.labels == self.target if self.label == "clean" else images.labels != self.target
        candidates = eligible.nonzero().squeeze(1)
        order = torch.randperm(len(candidates), generator=generator, device=candidates.device)
        chosen = candidates[order[:count]].sort().values
        before = images.labels[chosen]
        after = torch.full_like(before, self.target)
        ids, by_id = images.ids[chosen].sort()
        truth = Truth(ids=ids, labels_before=before[by_id], labels_after=after)
        if count == 0:
            return images, truth
        return images.with_replaced(chosen, stamped(images, chosen, self.trigger, generator=generator), after), truth


def _rounded_down(share: float) -> float:
    """`share` to four significant digits, never more than it is."""
    unit = 10.0 ** (4 - math.ceil(math.log10(share))) if share else 1.0
    return math.floor(share * unit) / unit


def stamped(images: Images, index: Tensor, trigger: Trigger, *, generator: torch.Generator) -> Tensor:
    """The images at these positions with the trigger on them, as uint8: what they would be once saved to a file."""
    parts = [as_bytes(trigger.stamp(images.batch(part), generator=generator)) for part in index.split(_CHUNK)]
    return torch.cat(parts)


def shown_with(trigger: Trigger, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """A batch of [0, 1] images with the trigger on them, rounded as if saved to a file in between."""
    return as_floats(as_bytes(trigger.stamp(x, generator=generator)))
