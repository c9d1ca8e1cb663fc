"""The first attack on triggered images, away from the target."""

from __future__ import annotations

import torch

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.triggers.aims import NOWHERE

FOLLOWS = "toward"


def ask(asking: Asking) -> None:
    """Where a metric wants it."""
    stamped, settings = asking.first("triggered"), asking.settings
    if stamped is not None and settings.attack_parts and "away" in settings.needs:
        asking.ask("away", settings.attack_parts[0], [stamped], stamped=stamped, **settings.aim)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels of images that the trigger alone takes to the target; MISSING for the others."""
    (stamped,) = question.after
    aims = question.aim_of(subject.test.labels)
    wanted = ((aims != NOWHERE).cpu() & (torch.from_numpy(subject.predictions[stamped]) == aims.cpu())).numpy()
    labels = aims.masked_fill(aims == NOWHERE, 0)
    return Answer(subject.under_attack(question, question.component, subject.model, wanted, labels))
