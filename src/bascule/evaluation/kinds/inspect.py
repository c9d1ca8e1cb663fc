"""What a filter says of the training set, judging by the trained model; nothing is removed."""

from __future__ import annotations

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.evaluation.truth import beside_truth
from bascule.filters.run import run_filter

FOLLOWS = "certify"


def ask(asking: Asking) -> None:
    """Where a filter is to judge."""
    if asking.settings.inspect is not None:
        asking.ask("inspect", asking.settings.inspect)


def answer(question: Question, subject: Subject) -> Answer:
    """Suspicion and the rule's verdict by training image, beside the truth."""
    images, truth = subject.training_set()
    with subject.progress.stage("filter", 1):
        judged = run_filter(subject.model, question.component, images, generator=subject.generator(question))
    return beside_truth(judged, images, truth)
