"""The evasion attacks on the images with the trigger."""

from __future__ import annotations

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "attack"


def ask(asking: Asking) -> None:
    """Where a metric wants it."""
    stamped = asking.first("triggered")
    if stamped is not None and "attack-triggered" in asking.settings.needs:
        asking.ask_in_turn("attack-triggered", asking.settings.attack_parts, stamped, stamped=stamped)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels, MISSING where an image was wrong before."""
    wanted = subject.right(question.after)
    return Answer(subject.under_attack(question, question.component, subject.model, wanted, subject.test.labels))
