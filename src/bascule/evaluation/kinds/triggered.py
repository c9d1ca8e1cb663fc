"""The test images with the trigger."""

from __future__ import annotations

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.poison.placement import stamp

FOLLOWS = "clean"


def ask(asking: Asking) -> None:
    """Where there is a trigger."""
    if asking.settings.trigger is not None:
        asking.ask("triggered", asking.settings.trigger)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels."""
    generator = subject.generator(question)
    return subject.predictions_on(lambda x: stamp(question.component, x, generator=generator))
