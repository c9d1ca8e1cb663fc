"""The test images with a weakened trigger: blended in by a share of its full strength."""

from __future__ import annotations

from torch import Tensor

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "away"
SHARES = tuple(step / 10 for step in range(1, 10))
"""Of the trigger's full strength, besides the full one."""


def ask(asking: Asking) -> None:
    """Where a metric wants it."""
    trigger = asking.settings.trigger
    if trigger is not None and "strength" in asking.settings.needs:
        for share in SHARES:
            asking.ask("strength", trigger, value=share)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels on x + share * (stamped x - x)."""
    generator, share = subject.generator(question), question.value
    assert share is not None

    def weakened(index: Tensor, x: Tensor) -> Tensor:
        return x.lerp(subject.stamped_at(question.component, index, x, generator=generator), share)

    return subject.predictions_on(weakened)
