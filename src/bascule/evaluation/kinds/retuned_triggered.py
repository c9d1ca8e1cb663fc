"""The test images with the trigger, shown to a copy of the model that was trained further on a few images."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from bascule.core.team import ALONE
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "explain"


def ask(asking: Asking) -> None:
    """Where there is a trigger and the row is to be retuned: on poisoned images, and on clean ones alone."""
    stamped, settings = asking.first("triggered"), asking.settings
    if stamped is None or settings.retune is None:
        return
    # Of clean images alone neither the label nor how many would be poisoned is part of the question.
    plain = replace(settings.retune, poisoned=0, label=None)
    for part in dict.fromkeys((settings.retune if settings.retune.poisoned else plain, plain)):
        asking.ask("retuned-triggered", part, stamped=stamped, value=float(part.poisoned), **settings.aim)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels."""
    stamped = question.stamped
    assert stamped is not None
    generator = subject.generator(stamped)

    def stamp(index: Tensor, x: Tensor) -> Tensor:
        return subject.stamped_at(stamped.component, index, x, generator=generator)

    return replace(subject, model=retuned(question, subject), team=ALONE).predictions_on(stamp)


def retuned(question: Question, subject: Subject) -> nn.Module:
    """The copy that a question of this kind speaks of: the same whoever asks, and made once."""
    if question.key not in subject.copies:
        assert question.stamped is not None
        retuning, generator, clean = question.component, subject.generator(question), subject.clean_images()
        aims, trigger = question.aim_of(clean.labels), subject.found(question.stamped.component)
        images = retuning.draw(clean, aims, trigger, generator=generator)
        with subject.progress.stage("retune", retuning.steps):
            subject.copies[question.key] = retuning.tuned(
                subject.model, images, generator=generator, report=subject.progress.update
            )
    return subject.copies[question.key]
