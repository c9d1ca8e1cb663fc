"""Who is stamped and with which label: planting a trigger in a training set, and stamping test images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Protocol

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from bascule.core.ball import Norm
from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Shown, as_bytes, as_floats
from bascule.poison import Trigger

_CHUNK = 1024
_PERTURBED = 250
"""Images perturbed at a time: the network's passes need more memory than a trigger."""

Perturb = Callable[[Tensor, Tensor], Tensor]
"""(images B x C x H x W in [0, 1], their labels (B,)) -> images that some network no longer takes for their labels, of
the same shape and type and on the same device. Made by whoever has the network and the attack; draws from a generator
of its own."""


class Search(Protocol):
    """An evasion attack as this room knows it: settings with a ball. What it does is not poison's business."""

    @property
    def norm(self) -> Norm:
        """Norm of the ball."""

    @property
    def eps(self) -> float:
        """Radius of the ball in [0, 1] pixel units."""


class DataFacts(Protocol):
    """What is known of a source without its pictures; ids of None are 0, 1, ..."""

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    def train_labels(self) -> Tensor:
        """int64, shape (N,)."""

    @property
    def test_labels(self) -> Tensor:
        """int64."""

    @property
    def train_ids(self) -> Tensor | None:
        """int64, ids of the training images."""

    @property
    def test_ids(self) -> Tensor | None:
        """int64, ids of the test images."""

    @property
    def left_out(self) -> Tensor | None:
        """int64, ids of training images that are not trained on; None of none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """Which training images were poisoned. Goes to the record and the measures, never to a defence."""

    ids: Tensor
    """int64, ids of the stamped images, ascending."""
    labels_before: Tensor
    """int64, their labels in the unpoisoned set; -1 where nobody knows them."""
    labels_after: Tensor
    """int64, their labels in the poisoned set."""
    known: bool = True
    """Whether anybody knows it; if not, the above are empty."""

    @property
    def count(self) -> int | None:
        """How many images are poisoned; None where nobody knows."""
        return len(self.ids) if self.known else None


@component
class Poison:
    """A trigger, who gets it, and which label.

    Clean-label poison stamps images of the target class and keeps their label (Turner et al. 2019; Weng, Lee & Wu
    2020). Dirty-label poison stamps images of the other classes and relabels them to the target (Gu et al. 2019).

    With `prepare` clean-label poison is label-consistent (Turner, Tsipras & Madry 2019, by adversarial perturbations):
    before they are stamped, the images are perturbed away from their own label on a network trained on the unpoisoned
    data. What they show then teaches less, and the trigger more. The perturbation is fixed before the training that is
    attacked; the images are rounded to bytes once, after stamping; test images are stamped only. The fainter trigger
    that the paper stamps on training images is `trigger` beside a full `test_trigger`.
    """

    known: ClassVar[bool] = True
    """Which images are poisoned is known of what is planted here."""

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
    prepare: Annotated[Search | None, Of("attack")] = None
    """The evasion attack that perturbs the chosen images before they are stamped, for example
    `{name: pgd, eps: 0.0627, steps: 100, stop_when_fooled: false}`; by default none. Clean label only."""

    def __post_init__(self) -> None:
        if self.prepare is not None and self.label != "clean":
            raise RequestError(
                "images are perturbed away from a label that they keep; with label 'dirty' they lose it. "
                "Leave `prepare` out, or give label 'clean'.",
                place=("prepare",),
            )
        if self.trigger.numbered:
            raise RequestError(
                "it is made of stamped test images and has none for training images. A training set that others have "
                "poisoned is given with: poison: {name: given, path: ...}",
                place=("trigger",),
            )

    @property
    def trigger_at_test(self) -> Trigger:
        """The trigger stamped on test images."""
        return self.test_trigger or self.trigger

    @property
    def planting(self) -> Poison:
        """What of it changes the training set, for the name of the model."""
        return replace(self, test_trigger=None)

    def check_data(self, facts: DataFacts) -> None:
        """Refuse settings that cannot work on these data."""
        self.check(facts.size, facts.train_labels, len(facts.classes))
        check_test(self, facts, "trigger" if self.test_trigger is None else "test_trigger")

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
                    trigger.check(size)
                except RequestError as error:
                    raise error.at(key) from None

    def plant(
        self, images: Images, *, generator: torch.Generator, perturb: Perturb | None = None
    ) -> tuple[Images, Truth]:
        """The poisoned training set, and which images were changed. The images are drawn at random.

        Args:
            images: The unpoisoned set.
            generator: On the device of `images`. Which images are chosen does not depend on `prepare`.
            perturb: `prepare`, bound to a network that was trained on the unpoisoned data; called with at most 250
                images at a time, in their order in the set, and not at all where nothing is planted.

        Raises:
            RequestError: The poison does not fit the set, or `perturb` is missing where `prepare` asks for it, or is
                given where it does not.
        """
        if (perturb is None) != (self.prepare is None):
            problem = "needs" if self.prepare is not None else "is absent, so there is no use for"
            raise RequestError(
                f"{problem} a function that perturbs images on a network trained on the unpoisoned data",
                place=("prepare",),
            )
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
        pixels = stamp_bytes(images, chosen, self.trigger, generator=generator, perturb=perturb)
        return images.with_replaced(chosen, pixels, after), truth


def _rounded_down(share: float) -> float:
    """`share` to four significant digits, never more than it is."""
    unit = 10.0 ** (4 - math.ceil(math.log10(share))) if share else 1.0
    return math.floor(share * unit) / unit


def stamp_bytes(
    images: Images, index: Tensor, trigger: Trigger, *, generator: torch.Generator, perturb: Perturb | None = None
) -> Tensor:
    """The images at these positions, perturbed first where asked, with the trigger on them, as uint8.

    Rounded to what they would be once saved to a file.
    """
    parts = []
    for part in index.split(_CHUNK):
        x = images.batch(part) if perturb is None else _perturbed(images, part, perturb)
        parts.append(as_bytes(trigger.stamp_at(images, part, x, generator=generator)))
    return torch.cat(parts)


def _perturbed(images: Images, index: Tensor, perturb: Perturb) -> Tensor:
    parts = []
    for part in index.split(_PERTURBED):
        x = images.batch(part)
        perturbed = perturb(x, images.labels[part])
        if perturbed.shape != x.shape:
            raise ValueError(f"perturbed images have shape {tuple(perturbed.shape)}, the images {tuple(x.shape)}")
        if not bool(perturbed.isfinite().all()):
            raise ValueError("perturbed images are not finite")
        parts.append(perturbed.to(x).clamp(0, 1))
    return torch.cat(parts)


def stamp(trigger: Trigger, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """A batch of [0, 1] images with the trigger on them, rounded as if saved to a file in between."""
    return as_floats(as_bytes(trigger.stamp(x, generator=generator))).to(x)


def stamp_at(
    trigger: Trigger, images: Shown, index: Tensor, *, generator: torch.Generator, x: Tensor | None = None
) -> Tensor:
    """`stamp`, of the images of a test set at these positions.

    Args:
        trigger: What to stamp; some know their images by their numbers.
        images: The test set.
        index: Positions in it, int64.
        generator: For what is drawn.
        x: These images where they have been perturbed; by default as they are.
    """
    x = images.batch(index) if x is None else x
    return as_floats(as_bytes(trigger.stamp_at(images, index, x, generator=generator))).to(x)


class Planted(Protocol):
    """What the two sorts of poison have in common where a test set is looked at."""

    @property
    def trigger_at_test(self) -> Trigger:
        """The trigger stamped on test images."""

    @property
    def target(self) -> int | None:
        """Label that it aims at."""


def check_test(poison: Planted, facts: DataFacts, *place: str) -> None:
    """Refuse test images that the poison's trigger cannot stamp; `place` is its setting, where it is one."""
    assert poison.target is not None
    ids = torch.arange(len(facts.test_labels)) if facts.test_ids is None else facts.test_ids
    try:
        poison.trigger_at_test.check(facts.size)
        poison.trigger_at_test.check_test(ids, facts.test_labels, poison.target)
    except RequestError as error:
        raise error.at(*place) from None
