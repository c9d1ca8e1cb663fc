"""The test images with each of the poison's triggers that the row does not measure."""

from __future__ import annotations

import functools

import torch

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.metrics.contract import MISSING
from bascule.triggers.aims import NOWHERE

FOLLOWS = "triggered"


def ask(asking: Asking) -> None:
    """Where a metric wants it."""
    if "triggered-others" in asking.settings.needs:
        for number, (trigger, target, aims) in enumerate(asking.settings.others):
            asking.ask("triggered-others", trigger, target=target, aims=aims, value=float(number))


def answer(question: Question, subject: Subject) -> Answer:
    """1 where an image is taken for what this trigger aims at, else 0; MISSING where it is not meant to move.

    No predicted labels, since what the other triggers aim at is in this question alone.
    """
    stamp = functools.partial(subject.stamped_at, question.component, generator=subject.generator(question))
    predicted = subject.predictions_on(stamp).column
    assert predicted is not None
    aims = question.aim_of(subject.test.labels).to(predicted.device)
    return Answer(torch.where(aims == NOWHERE, MISSING, (predicted == aims).to(torch.int64)))
