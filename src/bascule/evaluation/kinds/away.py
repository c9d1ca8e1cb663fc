"""The first attack on triggered images, away from the target."""

from __future__ import annotations

import torch

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "toward"


def ask(asking: Asking) -> None:
    """Where a metric wants it."""
    stamped, settings = asking.first("triggered"), asking.settings
    if stamped is not None and settings.attack_parts and "away" in settings.needs:
        asking.ask("away", settings.attack_parts[0], [stamped], stamped=stamped, target=settings.target)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels of images that the trigger alone takes to the target; MISSING for the others."""
    target = question.target
    assert target is not None
    (stamped,) = question.after
    wanted = (subject.labels != target) & (subject.predictions[stamped] == target)
    labels = torch.full_like(subject.test.labels, target)
    return Answer(subject.under_attack(question, question.component, subject.model, wanted, labels))
