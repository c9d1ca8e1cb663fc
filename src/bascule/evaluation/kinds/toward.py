"""The first attack on triggered images, towards the target."""

from __future__ import annotations

import torch

from bascule.attack.toward import Toward
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.measure import MISSING

FOLLOWS = "attack-triggered"


def ask(asking: Asking) -> None:
    """Where a metric wants it."""
    stamped, settings = asking.first("triggered"), asking.settings
    if stamped is not None and settings.attack_parts and "toward" in settings.needs:
        asking.ask("toward", settings.attack_parts[0], [stamped], stamped=stamped, target=settings.target)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels of images that the trigger alone does not take to the target; MISSING for the others."""
    target = question.target
    assert target is not None
    (stamped,) = question.after
    alone = subject.predictions[stamped]
    wanted = (subject.labels != target) & (alone != target)
    zeros = torch.zeros_like(subject.test.labels)
    choice = subject.under_attack(question, question.component, Toward(subject.model, target), wanted, zeros)
    # Where the target was not reached nothing is known but what the trigger alone does.
    return Answer(torch.where(choice == 1, target, MISSING).where(choice != 0, torch.from_numpy(alone)))
