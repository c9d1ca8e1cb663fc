"""Certified radii."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bascule.certifiers.run import run_certifier
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Part, Subject

FOLLOWS = "curve"


def ask(asking: Asking) -> None:
    """One question a certifier."""
    for certifier in asking.settings.certify:
        asking.ask("certify", certifier, asking.of("clean"))


def answer(question: Question, subject: Subject) -> Answer:
    """Radii of the images that are right when clean, 0 for the others and where nothing is proved."""
    wanted, certifier = subject.right(question.after), question.component

    def parts() -> Iterator[Part]:
        for number, index, x in subject.batches(question, wanted, own=True):
            y, generator = subject.test.labels[index], subject.generator(question, batch=number)
            bound = run_certifier(subject.model, certifier, x, y, generator=generator)
            # A radius that reaches the one asked for in 32 bits may be below it in 64.
            radius = torch.where(bound.certified, bound.radius.double().clamp_min(certifier.eps), bound.radius)
            yield Part(index, radius, int(bound.certified.sum()))

    return Answer(subject.gathered(subject.told(parts(), question, int(wanted.sum()), "certified"), 0.0))
