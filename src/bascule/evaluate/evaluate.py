"""Doing one evaluation of a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bascule.attack import Attack
from bascule.attack.checks import SAMPLE, signs_of_attack, signs_of_model
from bascule.attack.toward import Toward
from bascule.certify import Certifier
from bascule.core import rng
from bascule.core.images import Images
from bascule.core.inference import predict
from bascule.core.progress import Progress
from bascule.core.restore import full_precision
from bascule.evaluate.passes import BATCH, answers_under, batches, batches_with, first_of, radii_under
from bascule.measure import MISSING, Labels
from bascule.plan.plan import Cell
from bascule.plan.questions import Link
from bascule.poison import Trigger
from bascule.poison.placement import stamp
from bascule.record.run import RunRecord
from bascule.run.context import RunContext


@dataclass(frozen=True)
class Answer:
    """What an evaluation found."""

    column: Tensor | None = None
    """One value per test image: a predicted label, or a radius."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Kept beside it."""
    arrays: dict[str, Tensor] = field(default_factory=dict)
    """What is not one value per test image."""


@dataclass(frozen=True)
class Job:
    """One evaluation to do."""

    cell: Cell
    link: Link
    run: RunRecord
    workshop: RunContext
    model: nn.Module
    test: Images
    """The test images, on the device of the model."""

    @property
    def progress(self) -> Progress:
        """Where to tell how far it is."""
        return self.workshop.progress

    @property
    def generator(self) -> torch.Generator:
        """A fresh stream of this evaluation's own."""
        return rng.stream(self.cell.seed, self.link.key, device=self.test.device)

    @cached_property
    def known(self) -> dict[str, Labels]:
        """Predictions recorded so far, in the order of the test images."""
        table = self.run.cell(self.cell.fingerprint).outcomes()
        places = np.searchsorted(table.id, self.test.ids.cpu().numpy())
        return {"label": table.label[places], **{key: values[places] for key, values in table.columns.items()}}

    def images(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions and images of those wanted, batch by batch: with the trigger where the link is about these."""
        shown = self.link.shown
        if shown is None:
            return batches(self.test, wanted)
        generator = rng.stream(self.cell.seed, shown.key, device=self.test.device)
        return batches_with(shown.component, self.test, wanted, generator=generator)

    def under(self, attack: Attack, model: nn.Module, wanted: NDArray[np.bool_], labels: Tensor) -> Tensor:
        """The model's answers under the attack for the images wanted, MISSING for the others; int64 on the CPU.

        Args:
            attack: What to do.
            model: Whom to attack.
            wanted: Which test images, in order.
            labels: Labels to move away from, for every test image.
        """
        with self.progress.stage(str(self.link.settings["name"]), int(wanted.sum())):
            return answers_under(
                attack, model, self.images(wanted), labels, generator=self.generator, progress=self.progress
            )


def evaluated(job: Job) -> Answer:
    """Do one evaluation, in full precision."""
    from bascule.evaluate.examine import EXAMINE

    with full_precision(job.test.device):
        return (_EVALUATE | EXAMINE)[job.link.kind](job)


# --- one function for each kind --------------------------------------------------------------------------------------


def _clean(job: Job) -> Answer:
    return Answer(predict(job.model, job.test, batch_size=BATCH))


def _triggered(job: Job) -> Answer:
    trigger, generator = job.link.component, job.generator
    return _shown(job, lambda x: stamp(trigger, x, generator=generator))


def _strength(job: Job) -> Answer:
    """The trigger blended into the image: x + share * (stamped x - x)."""
    trigger, generator, share = job.link.component, job.generator, job.link.value
    assert isinstance(trigger, Trigger)
    assert share is not None

    def weakened(x: Tensor) -> Tensor:
        return x.lerp(stamp(trigger, x, generator=generator), share)

    return _shown(job, weakened)


def _shown(job: Job, change: Callable[[Tensor], Tensor]) -> Answer:
    return Answer(predict(job.model, job.test, batch_size=BATCH, change=change))


def _attacked(job: Job) -> Answer:
    """The attack on images that are right before it and withstood the attacks before this one."""
    known, attack = job.known, job.link.component
    wanted = _right(known, job.link.after)
    found = job.under(attack, job.model, wanted, job.test.labels)
    if job.link.shown is not None:
        return Answer(found)
    left = (found == job.test.labels.cpu()).numpy()
    chain = [link.key for link in job.cell.links if link.kind == job.link.kind]
    signs: dict[str, float] = {}
    if job.link.key == chain[0]:
        signs |= signs_of_model(job.model, attack, *first_of(job.test, wanted, SAMPLE))
    if job.link.key == chain[-1]:
        generator = rng.stream(job.cell.seed, job.link.key, "signs", device=job.test.device)
        signs |= signs_of_attack(job.model, attack, *first_of(job.test, left, SAMPLE), generator=generator)
    return Answer(found, {"signs": {name: round(share, 4) for name, share in signs.items()}})


def _toward(job: Job) -> Answer:
    known, target = job.known, job.link.target
    assert target is not None
    (shown,) = job.link.after
    wanted = (known["label"] != target) & (known[shown] != target)
    zeros = torch.zeros_like(job.test.labels)
    choice = job.under(job.link.component, Toward(job.model, target), wanted, zeros)
    # Where the target was not reached nothing is known but what the trigger alone does.
    return Answer(torch.where(choice == 1, target, MISSING).where(choice != 0, torch.from_numpy(known[shown])))


def _away(job: Job) -> Answer:
    known, target = job.known, job.link.target
    assert target is not None
    (shown,) = job.link.after
    wanted = (known["label"] != target) & (known[shown] == target)
    return Answer(job.under(job.link.component, job.model, wanted, torch.full_like(job.test.labels, target)))


def _curve(job: Job) -> Answer:
    """A point of the security curve: images fooled in a smaller ball are fooled, those standing in a larger stand."""
    known, eps = job.known, job.link.value
    assert eps is not None
    fooled = {key: (known[key] != known["label"]) & (known[key] != MISSING) for key, _ in job.link.radii}
    wanted = _right(known, job.link.after)
    for key, radius in job.link.radii:
        if radius <= eps:
            wanted &= ~fooled[key]
    larger = [radius for _, radius in job.link.radii if radius > eps]
    if larger:
        # Points come outwards from the study's own radius: what stands at the next larger one needs no try here.
        next_larger = [key for key, radius in job.link.radii if radius == min(larger)]
        wanted &= np.logical_or.reduce([fooled[key] for key in next_larger])
    found = torch.full((len(job.test),), MISSING)
    for attack in job.link.component:
        answer = job.under(attack, job.model, wanted, job.test.labels)
        found = torch.where(answer == MISSING, found, answer)
        wanted &= (answer == job.test.labels.cpu()).numpy()
    return Answer(found)


def _certified(job: Job) -> Answer:
    """Certified radii of the images that are right when clean."""
    certifier = job.link.component
    assert isinstance(certifier, Certifier)
    wanted = _right(job.known, job.link.after)
    with job.progress.stage(str(job.link.settings["name"]), int(wanted.sum())):
        return Answer(
            radii_under(
                certifier, job.model, job.images(wanted), job.test.labels, generator=job.generator,
                progress=job.progress,
            )
        )  # fmt: skip


def _right(known: dict[str, Labels], keys: tuple[str, ...]) -> NDArray[np.bool_]:
    """Images that none of these evaluations has shown wrong."""
    return np.logical_and.reduce([known[key] == known["label"] for key in keys])


_EVALUATE: dict[str, Callable[[Job], Answer]] = {
    "clean": _clean,
    "triggered": _triggered,
    "strength": _strength,
    "attack": _attacked,
    "attack-triggered": _attacked,
    "toward": _toward,
    "away": _away,
    "curve": _curve,
    "certify": _certified,
}
