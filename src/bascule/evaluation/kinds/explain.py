"""Explanations: of test images with and without the trigger, or of the target class's training images."""

from __future__ import annotations

import torch
from torch import Tensor

from bascule.core.features import features
from bascule.core.images import as_bytes
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import BATCH, EXPLAINED, Answer, Subject
from bascule.evaluation.truth import poisoned
from bascule.explanations.attention import changed_pixels, changed_share, trigger_attention
from bascule.explanations.contract import HeatMap, Projection, Spectrum
from bascule.explanations.run import run_heat_map, run_spectrum

FOLLOWS = "scan"
GALLERY = 8
"""Test images whose explanation is shown."""


def ask(asking: Asking) -> None:
    """One question an explanation."""
    settings = asking.settings
    for method in settings.explain:
        asking.ask("explain", method, trigger=settings.trigger, **settings.aim)


def answer(question: Question, subject: Subject) -> Answer:
    """Arrays, by the sort of explanation."""
    method = question.component
    if isinstance(method, Projection):
        return _projection(question, subject, method)
    if isinstance(method, Spectrum):
        return _spectrum(question, subject, method)
    return _heat(question, subject, method)


def _projection(question: Question, subject: Subject, method: Projection) -> Answer:
    """Where the model puts the training images that carry the target's label, poisoned ones among them."""
    images, truth = subject.training_set()
    index = (images.labels == (question.target or 0)).nonzero().squeeze(1)
    chosen = images.at(index)
    latents = features(subject.model, chosen, layer=method.layer)
    points = method.project(latents, generator=subject.generator(question))
    return Answer(arrays={"points": torch.from_numpy(points), **poisoned(chosen, truth)})


def _heat(question: Question, subject: Subject, method: HeatMap) -> Answer:
    """Where the model looks: at clean images for their label, at triggered ones for the target."""
    test, generator = subject.test, subject.generator(question)

    def heat(x: Tensor, y: Tensor) -> Tensor:
        return run_heat_map(subject.model, method, x, y, generator=generator, batch_size=BATCH)

    if question.trigger is None or (question.target is None and question.aims is None):
        index = torch.arange(min(GALLERY, len(test)), device=test.device)
        x = test.batch(index)
        return Answer(arrays={"clean": as_bytes(x), "heat_clean": heat(x, test.labels[index])})
    index, x, stamped = subject.stamped_pairs(question, EXPLAINED)
    labels = test.labels[index]
    towards = question.aim_of(labels)
    changed = changed_pixels(x, stamped)
    on_clean, on_stamped = heat(x, towards), heat(stamped, towards)
    return Answer(
        arrays={
            "attention": trigger_attention(on_stamped, changed),
            "attention_clean": trigger_attention(on_clean, changed),
            "chance": changed_share(changed),
            "clean": as_bytes(x[:GALLERY]),
            "stamped": as_bytes(stamped[:GALLERY]),
            "heat_clean": heat(x[:GALLERY], labels[:GALLERY]),
            "heat_stamped": on_stamped[:GALLERY],
        }
    )


def _spectrum(question: Question, subject: Subject, method: Spectrum) -> Answer:
    """How the model's answers depend on frequency, on clean test images."""
    test = subject.test
    index = torch.arange(min(EXPLAINED, len(test)), device=test.device)
    x, y = test.batch(index), test.labels[index]
    response = run_spectrum(subject.model, method, x, y, generator=subject.generator(question), batch_size=BATCH)
    frequencies = method.frequencies(x.shape[2], x.shape[3])
    return Answer(
        arrays={"frequencies": frequencies, "response": response.nanmean(0), "count": (~response.isnan()).sum(0)}
    )
