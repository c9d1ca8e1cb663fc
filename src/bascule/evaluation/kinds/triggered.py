"""The test images with the trigger."""

from __future__ import annotations

import torch
from torch import Tensor

from bascule.core.images import as_bytes
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "clean"


def ask(asking: Asking) -> None:
    """Where there is a trigger."""
    if asking.settings.trigger is not None:
        asking.ask("triggered", asking.settings.trigger)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels; and noted by label, where there are any, how many images the trigger leaves as they are."""
    generator = subject.generator(question)
    unchanged: list[Tensor] = []

    def stamp(index: Tensor, x: Tensor) -> Tensor:
        stamped = subject.stamped_at(question.component, index, x, generator=generator)
        unchanged.append(index[(as_bytes(x) == as_bytes(stamped)).flatten(1).all(1).to(index.device)])
        return stamped

    found = subject.predictions_on(stamp)
    labels = subject.test.labels[torch.cat(unchanged)]
    if len(labels):
        found.notes["unchanged"] = torch.bincount(labels).tolist()
    return found
