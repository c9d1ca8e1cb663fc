"""The test images as they are."""

from __future__ import annotations

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = None


def ask(asking: Asking) -> None:
    """Always."""
    asking.ask("clean")


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels."""
    return subject.predictions_on()
