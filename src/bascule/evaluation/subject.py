"""Whom questions are put to: a model, the images it is asked about, and what it has answered so far."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from bascule.core.inference import Filled, chunks, predict
from bascule.core.progress import Progress
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

    Attacks and triggers draw batch by batch from one stream, so on CUDA they draw otherwise than on the CPU. They do
    that anyway: the generators of the two give different numbers. A question's key holds neither; the record names the
    device.
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

    @property
    def labels(self) -> Labels:
        """The true labels."""
        return self.test.labels.cpu().numpy()

    def generator(self, question: Question, *purpose: str) -> torch.Generator:
        """A fresh stream of the question's own: the same wherever and whenever it is asked."""
        return rng.stream(self.seed, question.key, *purpose, device=self.test.device)

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
        """What the model takes all test images for, once changed: from positions and images, in order."""
        return Answer(predict(self.model, self.test, batch_size=batch_size(self.test), change=change))

    def stamped_at(self, trigger: Trigger, index: Tensor, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """The test images at these positions, as they are or perturbed (x), with the trigger on them."""
        return stamp_at(self.found(trigger), self.test, index, x=x, generator=generator)

    def first(self, wanted: NDArray[np.bool_], count: int) -> tuple[Tensor, Tensor]:
        """The first images of those wanted, `count` at most, with their labels."""
        index = self._places(wanted)[:count]
        return self.test.batch(index), self.test.labels[index]

    def batches(self, question: Question, wanted: NDArray[np.bool_]) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions and images of those wanted, batch by batch: with the trigger where the question is about these."""
        if question.stamped is not None:
            yield from self._stamped_batches(question.stamped, wanted)
            return
        places = self._places(wanted)
        yield from read_batches(self.test, places.split(batch_size(self.test)) if len(places) else ())

    def all_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions and images of the whole set, in order, in the batches in which a trigger is stamped."""
        yield from read_batches(self.test, chunks(len(self.test), batch_size(self.test), self.test.device))

    def _stamped_batches(self, stamped: Question, wanted: NDArray[np.bool_]) -> Iterator[tuple[Tensor, Tensor]]:
        """A trigger may draw: all images are stamped, in the order in which they are when `stamped` is answered."""
        keep, generator = torch.from_numpy(wanted).to(self.test.device), self.generator(stamped)
        for index, x in self.all_batches():
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
        predictions, filled, generator = torch.full((len(labels),), MISSING), Filled(model), self.generator(question)
        done = fooled = 0
        with self.progress.stage(str(question.settings["name"]), int(wanted.sum())):
            for index, x in self.batches(question, wanted):
                y = labels[index]
                attacked = run_attack(filled, attack, x, y, generator=generator, precision=question.precision)
                prediction = attacked.prediction
                predictions[index.cpu()] = prediction.cpu()
                done, fooled = done + len(index), fooled + int((prediction != y).sum())
                self.progress.update(done, f"fooled {fooled}")
        return predictions

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
