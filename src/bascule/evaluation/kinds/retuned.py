"""The test images as they are, shown to a copy of the model that was trained further on a few images."""

from __future__ import annotations

from dataclasses import replace

from bascule.core.team import ALONE
from bascule.evaluation.kinds import retuned_triggered
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "retuned-triggered"


def ask(asking: Asking) -> None:
    """One question a copy."""
    for of in asking.of("retuned-triggered"):
        asking.ask("retuned", of.component, of=of, value=of.value)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels."""
    assert question.of is not None
    return replace(subject, model=retuned_triggered.retuned(question.of, subject), team=ALONE).predictions_on()
