"""Several poisons in one training set."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from bascule.core.catalog import component, describe
from bascule.core.errors import RequestError
from bascule.core.images import Images, as_bytes
from bascule.triggers.aims import Aims
from bascule.triggers.contract import Found, Trigger
from bascule.triggers.fit import DataFacts
from bascule.triggers.placement import Poison, Truth
from bascule.triggers.stamping import Perturb


@component
class SeveralPoisons:
    """Several poisons planted in one training set, each on images of its own.

    They are planted in their order with one stream: the first as it is alone, each later one on images that those
    before it have left. All of the row's numbers are about the one that is `measured`, which has no part in the model:
    `vary: {poison.measured: [0, 1]}` trains each model once and gives each poison a row with its own ASR, twin and
    flags. `asr-worst` is that of the most successful one.
    """

    known: ClassVar[bool] = True
    """Which images are poisoned is known of what is planted here."""

    name: Literal["several"]
    parts: tuple[Poison, ...]
    """The poisons, each written as it is alone; none that is prepared or searched for."""
    measured: Annotated[int, Ge(0)] = 0
    """Number, from 0, of the one whose trigger is stamped on test images."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise RequestError("at least one poison is needed", place=("parts",))
        if self.measured >= len(self.parts):
            raise RequestError(
                f"there is no poison {self.measured}; they are 0..{len(self.parts) - 1}", place=("measured",)
            )
        for number, part in enumerate(self.parts):
            if part.needs_proxy:
                what = "prepare" if part.prepare is not None else "trigger"
                raise RequestError(
                    "one poison of several can be neither prepared nor searched for; leave it out",
                    place=(f"parts[{number}]", what),
                )

    @property
    def _measured(self) -> Poison:
        return self.parts[self.measured]

    @property
    def trigger_at_test(self) -> Trigger:
        """The trigger stamped on test images: that of the poison that is measured."""
        return self._measured.trigger_at_test

    @property
    def target(self) -> int | None:
        """Label that it aims at; None where there are several."""
        return self._measured.target

    def aims(self, classes: int) -> Aims | None:
        """What it aims at, by class; None where that is `target` for all others."""
        return self._measured.aims(classes)

    def others(self, classes: int) -> tuple[tuple[Trigger, int | None, Aims | None], ...]:
        """Trigger, target and aims of those that are not measured."""
        others = (part for number, part in enumerate(self.parts) if number != self.measured)
        return tuple((part.trigger_at_test, part.target, part.aims(classes)) for part in others)

    @property
    def needs_proxy(self) -> bool:
        """None of them is prepared or searched for."""
        return False

    @property
    def planting(self) -> dict[str, Any]:
        """What of it changes the training set, for the name of the model."""
        return {"name": self.name, "parts": [describe(part.planting) for part in self.parts]}

    def count(self, labels: Tensor, classes: int) -> int:
        """Number of images that will be poisoned by any of them, given the training labels.

        Raises:
            RequestError: As of one poison, or those before one may leave it too few.
        """
        drawn: list[tuple[Tensor, int]] = []
        total = 0
        for number, part in enumerate(self.parts):
            try:
                poisoned, covers = part.count(labels, classes), part.count_covers(labels, classes)
            except RequestError as error:
                raise error.at(f"parts[{number}]") from None
            pools = {"rate": (part.eligible(labels, classes), poisoned), "cover": (part.coverable(labels), covers)}
            for place, (pool, wanted) in pools.items():
                left = int(pool.sum()) - sum(min(count, int((other & pool).sum())) for other, count in drawn)
                if wanted > left:
                    raise RequestError(
                        f"{getattr(part, place)} is {wanted} images, of which those before may leave {max(left, 0)}",
                        place=(f"parts[{number}]", place),
                    )
                drawn.append((pool, wanted))
            total += poisoned
        return total

    def check_data(self, facts: DataFacts) -> None:
        """Refuse settings that cannot work on these data."""
        for number, part in enumerate(self.parts):
            try:
                part.check_data(facts)
            except RequestError as error:
                raise error.at(f"parts[{number}]") from None
        self.count(facts.train_labels, len(facts.classes))

    def plant(
        self, images: Images, *, generator: torch.Generator, perturb: Perturb | None = None, found: Found | None = None
    ) -> tuple[Images, Truth]:
        """The poisoned training set, and which images were changed by any of them.

        Args:
            images: The unpoisoned set.
            generator: On the device of `images`.
            perturb: Nothing is prepared.
            found: Nothing is searched for.
        """
        self.count(images.labels, len(images.classes))
        planted, truths = images, []
        taken = torch.zeros_like(images.labels, dtype=torch.bool)
        for part in self.parts:
            own, truth = part.plant(images, generator=generator, taken=taken)
            changed = torch.isin(images.ids, torch.cat([truth.ids, truth.covers.to(truth.ids)]))
            index = changed.nonzero().squeeze(1)
            if len(index):
                planted = planted.with_replaced(index, as_bytes(own.batch(index)), own.labels[index])
            taken |= changed
            truths.append(truth)
        ids, order = torch.cat([truth.ids for truth in truths]).sort()
        before, after = (
            torch.cat([getattr(truth, name) for truth in truths])[order] for name in ("labels_before", "labels_after")
        )
        covers = torch.cat([truth.covers.to(ids) for truth in truths]).sort().values
        return planted, Truth(ids=ids, labels_before=before, labels_after=after, covers=covers)
