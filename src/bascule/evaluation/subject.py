"""Whom questions are put to: a model, the images it is asked about, and what it has answered so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bascule.attack import Attack
from bascule.core import rng
from bascule.core.errors import RequestError
from bascule.core.images import Images, Shown
from bascule.core.inference import predict
from bascule.core.progress import Progress
from bascule.evaluation import passes
from bascule.evaluation.question import Question
from bascule.measure import Labels
from bascule.poison.placement import Truth, stamp

EXPLAINED = 256
"""Test images on which explanations are counted and recovered triggers compared."""


@dataclass(frozen=True)
class Answer:
    """What a question found."""

    column: Tensor | None = None
    """One value per test image, on any device: a predicted label (int64), or a radius (float64)."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Kept beside it."""
    arrays: dict[str, Tensor] = field(default_factory=dict)
    """What is not one value per test image."""


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
    held_out: Callable[[], Images] | None = None
    """Clean images for a defender, on that device; None where nobody has them."""

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

    def right(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Images that none of these questions has shown wrong."""
        return np.logical_and.reduce([self.predictions[key] == self.labels for key in keys])

    def predictions_on(self, change: Callable[[Tensor], Tensor] | None = None) -> Answer:
        """What the model takes all test images for, once changed."""
        return Answer(predict(self.model, self.test, batch_size=passes.BATCH, change=change))

    def batches(self, question: Question, wanted: NDArray[np.bool_]) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions and images of those wanted, batch by batch: with the trigger where the question is about these."""
        stamped = question.stamped
        if stamped is None:
            return passes.batches(self.test, wanted)
        generator, trigger = self.generator(stamped), stamped.component
        return passes.changed_batches(self.test, wanted, lambda x: stamp(trigger, x, generator=generator))

    def under_attack(
        self, question: Question, attack: Attack, model: nn.Module, wanted: NDArray[np.bool_], labels: Tensor
    ) -> Tensor:
        """The model's answers under the attack for the images wanted, MISSING for the others; int64 on the CPU.

        Args:
            question: On whose behalf: its images, its stream.
            attack: What to do.
            model: Whom to attack.
            wanted: Which test images, in order.
            labels: Labels to move away from, for every test image.
        """
        with self.progress.stage(str(question.settings["name"]), int(wanted.sum())):
            return passes.answers_under(
                attack,
                model,
                self.batches(question, wanted),
                labels,
                generator=self.generator(question),
                progress=self.progress,
            )

    def stamped_pairs(self, question: Question, count: int) -> tuple[Tensor, Tensor]:
        """The first test images that are not of the target class, without and with the question's trigger."""
        trigger, target = question.trigger, question.target
        assert trigger is not None
        assert target is not None
        index = (self.test.labels != target).nonzero().squeeze(1)[:count]
        x = self.test.batch(index)
        return x, stamp(trigger, x, generator=self.generator(question, "shown"))
