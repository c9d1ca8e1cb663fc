"""Certified radii."""

from __future__ import annotations

import torch

from bascule.certifiers.run import run_certifier
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "curve"


def ask(asking: Asking) -> None:
    """One question a certifier."""
    for certifier in asking.settings.certify:
        asking.ask("certify", certifier, asking.of("clean"))


def answer(question: Question, subject: Subject) -> Answer:
    """Radii of the images that are right when clean, 0 for the others and where nothing is proved."""
    wanted, certifier, progress = subject.right(question.after), question.component, subject.progress
    radii, generator = torch.zeros(len(subject.test), dtype=torch.float64), subject.generator(question)
    done = proved = 0
    with progress.stage(str(question.settings["name"]), int(wanted.sum())):
        for index, x in subject.batches(question, wanted):
            bound = run_certifier(subject.model, certifier, x, subject.test.labels[index], generator=generator)
            # A radius that reaches the one asked for in 32 bits may be below it in 64.
            radius = torch.where(bound.certified, bound.radius.double().clamp_min(certifier.eps), bound.radius)
            radii[index.cpu()] = radius.double().cpu()
            done, proved = done + len(index), proved + int(bound.certified.sum())
            progress.update(done, f"certified {proved}")
    return Answer(radii)
