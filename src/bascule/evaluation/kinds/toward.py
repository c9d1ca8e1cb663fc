"""The first attack on triggered images, towards the target."""

from __future__ import annotations

import torch

from bascule.attacks.toward import Toward
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.metrics.contract import MISSING
from bascule.triggers.aims import NOWHERE

FOLLOWS = "attack-triggered"


def ask(asking: Asking) -> None:
    """Where a metric wants it."""
    stamped, settings = asking.first("triggered"), asking.settings
    if stamped is not None and settings.attack_parts and "toward" in settings.needs:
        asking.ask("toward", settings.attack_parts[0], [stamped], stamped=stamped, **settings.aim)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels of images that the trigger alone does not take to the target; MISSING for the others."""
    (stamped,) = question.after
    alone, aims = torch.from_numpy(subject.predictions[stamped]), question.aim_of(subject.test.labels).cpu()
    zeros = torch.zeros_like(subject.test.labels)
    answers = torch.full_like(alone, MISSING)
    for target in aims[aims != NOWHERE].unique().tolist():
        wanted = ((aims == target) & (alone != target)).numpy()
        choice = subject.under_attack(question, question.component, Toward(subject.model, target), wanted, zeros)
        # Where the target was not reached nothing is known but what the trigger alone does.
        answers = torch.where(choice == 1, target, torch.where(choice == 0, alone, answers))
    return Answer(answers)
