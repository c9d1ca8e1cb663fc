"""The test images with the trigger."""

from __future__ import annotations

import functools

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "clean"


def ask(asking: Asking) -> None:
    """Where there is a trigger."""
    if asking.settings.trigger is not None:
        asking.ask("triggered", asking.settings.trigger)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels."""
    stamp = functools.partial(subject.stamped_at, question.component, generator=subject.generator(question))
    return subject.predictions_on(stamp)
