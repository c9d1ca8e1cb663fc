"""Certified radii."""

from __future__ import annotations

from bascule.evaluation.passes import radii_under
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "curve"


def ask(asking: Asking) -> None:
    """One question a certifier."""
    for certifier in asking.settings.certify:
        asking.ask("certify", certifier, asking.of("clean"))


def answer(question: Question, subject: Subject) -> Answer:
    """Radii of the images that are right when clean, 0 for the others."""
    wanted = subject.right(question.after)
    with subject.progress.stage(str(question.settings["name"]), int(wanted.sum())):
        radii = radii_under(
            question.component,
            subject.model,
            subject.batches(question, wanted),
            subject.test.labels,
            generator=subject.generator(question),
            progress=subject.progress,
        )
    return Answer(radii)
