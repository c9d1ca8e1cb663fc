"""The test images with a weakened trigger: blended in by a share of its full strength."""

from __future__ import annotations

from torch import Tensor

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.poison.placement import stamp

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

    def weakened(x: Tensor) -> Tensor:
        return x.lerp(stamp(question.component, x, generator=generator), share)

    return subject.predictions_on(weakened)
