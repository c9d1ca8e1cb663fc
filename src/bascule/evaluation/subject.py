"""Whom questions are put to: a model, the images it is asked about, and what it has answered so far."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bascule.attacks.contract import Evasion
from bascule.attacks.run import run_attack
from bascule.core import rng
from bascule.core.ahead import read_batches
from bascule.core.errors import RequestError
from bascule.core.fingerprint import fingerprint
from bascule.core.images import Images, Shown
from bascule.core.inference import Filled, chunks, labels_of
from bascule.core.progress import Progress
from bascule.core.restore import evaluating
from bascule.core.team import ALONE, Team
from bascule.evaluation.question import Question
from bascule.metrics.contract import MISSING, Labels
from bascule.triggers.aims import NOWHERE
from bascule.triggers.contract import Trigger
from bascule.triggers.placement import Truth
from bascule.triggers.stamping import stamp_at

BATCH = 500
"""Images per pass."""
BATCH_ON_CUDA = 2000
"""The same on CUDA, of images of at most 3 x 32 x 32 values: passes over few small images wait for their launches."""
EXPLAINED = 256
"""Test images on which explanations are counted and recovered triggers compared."""


def batch_size(images: Shown) -> int:
    """Images per pass, by device and size alone, so that a machine with less memory answers the same.

    Attacks and triggers draw batch by batch, so on CUDA they draw otherwise than on the CPU. They do that anyway: the
    generators of the two give different numbers. A question's key holds neither; the record names the device.
    """
    if images.device.type != "cuda":
        return BATCH
    return BATCH_ON_CUDA if math.prod(images.size) <= 3 * 32 * 32 else BATCH


@dataclass(frozen=True)
class Answer:
    """What a question found."""

    column: Tensor | None = None
    """One value per test image, on any device: a predicted label (int64), or a radius (float64)."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Kept beside it."""
    arrays: dict[str, Tensor] = field(default_factory=dict)
    """What is not one value per test image."""

    def numpy_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays as a record keeps them."""
        return {name: values.cpu().numpy() for name, values in self.arrays.items()}


class Batch(NamedTuple):
    """Some test images."""

    number: int
    """Of the batch, from 0, among those that a question goes through."""
    places: Tensor
    """Positions in the test set, shape (B,)."""
    x: Tensor
    """B x C x H x W."""


class Part(NamedTuple):
    """What was found out about a batch."""

    places: Tensor
    """Positions in the test set, shape (B,)."""
    values: Tensor
    """One for each."""
    counted: int = 0
    """How many are worth a word on the way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A model and what its questions are about. It knows no run and no folder."""

    model: nn.Module
    """From [0, 1] images to logits."""
    test: Shown
    """The test images, on the device of the model."""
    seed: int
    """Of everything that is drawn."""
    questions: Sequence[Question]
    """All that is asked of the model, answered or not."""
    predictions: dict[str, Labels] = field(default_factory=dict)
    """Predicted labels that are known so far, in the order of the test images, by the key of their question."""
    progress: Progress = field(default_factory=Progress)
    training: Callable[[], tuple[Images, Truth | None]] | None = None
    """The training set with its poison, on that device, and which images are poisoned; None where nobody has it."""
    found: Callable[[Trigger], Trigger] = field(default=lambda trigger: trigger)
    """Looks up what a trigger is that was searched for."""
    held_out: Callable[[], Images] | None = None
    """Clean images for a defender, on that device; None where nobody has them."""
    clean: Callable[[], Images] | None = None
    """Clean images to train further on, on that device; None where nobody has them."""
    copies: dict[str, nn.Module] = field(default_factory=dict)
    """Changed copies of the model that were made so far, by the key of the question that made them."""
    inputs: dict[object, Sequence[Any]] = field(default_factory=dict)
    """Inputs made of the test images that several questions are about (`evaluation/inputs`)."""
    team: Team = ALONE
    """The processes among which the batches of a question are dealt out; all of them put the same questions."""

    @property
    def labels(self) -> Labels:
        """The true labels."""
        return self.test.labels.cpu().numpy()

    def generator(self, question: Question, *purpose: str, batch: int = 0) -> torch.Generator:
        """A fresh stream of the question's own: the same wherever and whenever it is asked.

        Where each batch of images has one, so that none depends on what the ones before it drew, that of the first is
        the question's.
        """
        of_batch = ("batch", batch) if batch else ()
        return rng.stream(self.seed, question.key, *purpose, *of_batch, device=self.test.device)

    def training_set(self) -> tuple[Images, Truth | None]:
        """The training set with its poison, and which images are poisoned.

        Raises:
            RequestError: Nobody has it.
        """
        if self.training is None:
            raise RequestError("this needs the training set, which is not known here: ask it in a study")
        return self.training()

    def defenders_images(self) -> Images:
        """Clean images for a defender.

        Raises:
            RequestError: Nobody has them.
        """
        if self.held_out is None:
            raise RequestError("this needs clean images that nobody trained on, which are not known here")
        return self.held_out()

    def clean_images(self) -> Images:
        """Clean images to train further on.

        Raises:
            RequestError: Nobody has them.
        """
        if self.clean is None:
            raise RequestError("this needs clean images to train on, which are not known here: ask it in a study")
        return self.clean()

    def right(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Images that none of these questions has shown wrong."""
        return np.logical_and.reduce([self.predictions[key] == self.labels for key in keys])

    def predictions_on(self, change: Callable[[Tensor, Tensor], Tensor] | None = None) -> Answer:
        """What the model takes all test images for, once changed.

        Args:
            change: From positions and images to other images; in every process it meets all of them, in order.
        """

        def parts() -> Iterator[Part]:
            for batch in self.all_batches(own=change is None):
                x = batch.x if change is None else change(batch.places, batch.x)
                if self.team.takes(batch.number):
                    yield Part(batch.places, self.labels_on(x))

        return Answer(self.gathered(parts(), MISSING))

    @torch.no_grad()
    def labels_on(self, x: Tensor) -> Tensor:
        """What the model takes a batch of images for, int64, shape (B,).

        Raises:
            RequestError: A logit is not a number.
        """
        with evaluating(self.model):
            return labels_of(self.model(x))

    def stamped_at(self, trigger: Trigger, index: Tensor, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """The test images at these positions, as they are or perturbed (x), with the trigger on them."""
        return stamp_at(self.found(trigger), self.test, index, x=x, generator=generator)

    def first(self, wanted: NDArray[np.bool_], count: int) -> tuple[Tensor, Tensor]:
        """The first images of those wanted, `count` at most, with their labels."""
        index = self._places(wanted)[:count]
        return self.test.batch(index), self.test.labels[index]

    def batches(self, question: Question, wanted: NDArray[np.bool_], *, own: bool = False) -> Iterator[Batch]:
        """The images wanted, batch by batch: with the trigger where the question is about these.

        Args:
            question: What they are for.
            wanted: Which test images, in order.
            own: Only the share of this process.
        """
        if question.stamped is None:
            yield from self._plain_batches(self._places(wanted), own)
            return
        for number, (index, x) in enumerate(self._stamped_batches(question.stamped, wanted)):
            if self.team.takes(number) or not own:
                yield Batch(number, index, x)

    def all_batches(self, *, own: bool = False) -> Iterator[Batch]:
        """The whole set, in order, in the batches in which a trigger is stamped; or only the share of this process."""
        yield from self._plain_batches(torch.arange(len(self.test), device=self.test.device), own)

    def _plain_batches(self, places: Tensor, own: bool) -> Iterator[Batch]:
        parts = enumerate(places.split(batch_size(self.test)) if len(places) else ())
        wanted = {number: part for number, part in parts if self.team.takes(number) or not own}
        for number, (index, x) in zip(wanted, read_batches(self.test, wanted.values()), strict=True):
            yield Batch(number, index, x)

    def _stamped_batches(self, stamped: Question, wanted: NDArray[np.bool_]) -> Iterator[tuple[Tensor, Tensor]]:
        """A trigger may draw: all images are stamped, in the order in which they are when `stamped` is answered."""
        keep, generator = torch.from_numpy(wanted).to(self.test.device), self.generator(stamped)
        for _, index, x in self.all_batches():
            x = self.stamped_at(stamped.component, index, x, generator=generator)
            chosen = keep[index]
            if bool(chosen.any()):
                yield index[chosen], x[chosen]

    def _places(self, wanted: NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(np.flatnonzero(wanted)).to(self.test.device)

    def under_attack(
        self, question: Question, attack: Evasion, model: nn.Module, wanted: NDArray[np.bool_], labels: Tensor
    ) -> Tensor:
        """The model's answers under the attack for the images wanted, MISSING for the others; int64 on the CPU.

        Args:
            question: On whose behalf: its images, its stream.
            attack: What to do.
            model: Whom to attack.
            wanted: Which test images, in order.
            labels: Labels to move away from, for every test image.
        """
        filled = Filled(model)

        def parts() -> Iterator[Part]:
            for number, index, x in self.batches(question, wanted, own=True):
                y, generator = labels[index], self.generator(question, batch=number)
                attacked = run_attack(filled, attack, x, y, generator=generator, precision=question.precision)
                yield Part(index, attacked.prediction, int((attacked.prediction != y).sum()))

        return self.gathered(self.told(parts(), question, int(wanted.sum()), "fooled"), MISSING)

    def told(self, parts: Iterable[Part], question: Question, total: int, counting: str = "") -> Iterator[Part]:
        """The parts, and on the way how far they are: in a team as if the others were as far as this process.

        Args:
            parts: The share of this process.
            question: What they are for.
            total: How many images the question is about.
            counting: The word for those that are counted.
        """
        done = counted = 0
        with self.progress.stage(str(question.settings["name"]), total):
            for part in parts:
                yield part
                done, counted = done + len(part.places), counted + part.counted
                note = f"{counting} {counted}" if self.team.size == 1 else f"{counting} {counted} of {done}"
                self.progress.update(min(total, done * self.team.size), note if counting else "")

    def gathered(self, parts: Iterable[Part], missing: float) -> Tensor:
        """A column of the parts that the processes of the team make, each its share, in every process; on the CPU.

        Args:
            parts: The share of this process, made as it is gone through.
            missing: What stands for the images of no part; the type of the column is that of this number.

        Raises:
            RequestError: What one of the processes raised.
        """
        column = torch.full((len(self.test),), missing, dtype=torch.float64 if isinstance(missing, float) else None)
        for share in self.team.share(lambda: [(part.places.cpu(), part.values.cpu()) for part in parts]):
            for places, values in share:
                column[places] = values.to(column)
        return column

    def stamped_pairs(self, question: Question, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The first test images that the question's trigger is meant to move: positions, without it, and with it."""
        assert question.trigger is not None
        index = (question.aim_of(self.test.labels) != NOWHERE).nonzero().squeeze(1)[:count]
        x = self.test.batch(index)
        return index, x, self.stamped_at(question.trigger, index, x, generator=self.generator(question, "shown"))


def content_identity(images: Shown) -> str:
    """Identity of images that belong to no run: their pixels, to 32 bits, and their labels."""
    content = hashlib.sha256(images.labels.cpu().numpy().tobytes())
    for _, x in read_batches(images, chunks(len(images), BATCH, images.device)):
        content.update(x.float().cpu().numpy().tobytes())
    return fingerprint("test", content.hexdigest())
