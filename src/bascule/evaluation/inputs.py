"""Inputs that the first attack makes of test images for detectors to judge: the same for every detector, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bascule.attacks.run import run_attack, to_its_end
from bascule.attacks.toward import Toward
from bascule.core.inference import Filled
from bascule.evaluation.question import Question
from bascule.evaluation.subject import Subject

_KEPT = 2**28
"""Most bytes of one sort of inputs that are kept for the next detector; more are made anew, the very same."""


@dataclass(frozen=True, eq=False)
class Attacked:
    """A batch of inputs under attack."""

    index: Tensor
    """Positions in the test set, shape (B,)."""
    x: Tensor
    """Before the attack, B x C x H x W."""
    made: Tensor
    """What it made of them, successful or not, B x C x H x W."""
    prediction: Tensor
    """What the model takes these for, or with a target, 1 where it is reached; int64, shape (B,)."""
    target: int | None = None
    """Label towards which they were pushed; None where that was away from the truth."""


def adversarial(question: Question, subject: Subject, wanted: NDArray[np.bool_]) -> Iterator[Attacked]:
    """What `question.attacked` made for robust accuracy of the test images wanted: in its batches, with their streams.

    Args:
        question: Of a detector.
        subject: Whom it is put to.
        wanted: Which test images, in order; the same for every detector.
    """
    attacked = question.attacked
    assert attacked is not None

    def make() -> Iterator[Attacked]:
        filled = Filled(subject.model)
        for number, index, x in subject.batches(attacked, wanted):
            y, generator = subject.test.labels[index], subject.generator(attacked, batch=number)
            found = run_attack(filled, attacked.component, x, y, generator=generator, precision=attacked.precision)
            yield Attacked(index, x, found.x, found.prediction)

    return _once(question, subject, lambda other: _key(other.attacked), make())


def pushed(question: Question, subject: Subject, wanted: NDArray[np.bool_]) -> Iterator[Attacked]:
    """What `question.attacked`, run to its end, makes of triggered test images on the way to the target, batch by
    batch and target by target: with streams of this attack and this trigger.

    Args:
        question: Of a detector.
        subject: Whom it is put to.
        wanted: Which test images, in order, all of them meant to move; the same for every detector.
    """
    attacked, stamped = question.attacked, question.stamped
    assert attacked is not None
    assert stamped is not None
    attack, aims = to_its_end(attacked.component), question.aim_of(subject.test.labels)

    def make() -> Iterator[Attacked]:
        for number, places, x in subject.batches(question, wanted):
            generator = subject.generator(attacked, "towards the target", stamped.key, batch=number)
            for target in aims[places].unique().tolist():
                same = aims[places] == target
                view, y = Filled(Toward(subject.model, target)), places.new_zeros(int(same.sum()))
                found = run_attack(view, attack, x[same], y, generator=generator, precision=attacked.precision)
                yield Attacked(places[same], x[same], found.x, found.prediction, target)

    return _once(
        question, subject, lambda other: (_key(other.attacked), _key(other.stamped), other.target, other.aims), make()
    )


def _key(question: Question | None) -> str:
    return "" if question is None else question.key


def _once(
    question: Question, subject: Subject, about: Callable[[Question], object], made: Iterator[Attacked]
) -> Iterator[Attacked]:
    """What another detector met already, or what is made now, and kept where another one is still to meet it.

    Args:
        question: Of the detector.
        subject: Whom it is put to.
        about: What of a detector's question the inputs depend on.
        made: How they are made.
    """
    key = about(question)
    if key in subject.inputs:
        yield from subject.inputs[key]
        return
    others = (other for other in subject.questions if other.kind == question.kind and other.key != question.key)
    keep = any(about(other) == key for other in others)
    kept: list[Attacked] = []
    for batch in made:
        keep = keep and sum(one.x.nbytes + one.made.nbytes for one in (*kept, batch)) <= _KEPT
        kept = [*kept, batch] if keep else []
        yield batch
    if keep:
        subject.inputs[key] = kept
