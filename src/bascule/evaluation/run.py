"""Putting questions to a model: what is guaranteed whatever their kind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bascule.core.progress import Progress
from bascule.core.restore import full_precision
from bascule.evaluation.kinds import kinds
from bascule.evaluation.question import Asking, EvaluationSettings, Question
from bascule.evaluation.subject import Answer, Subject


def questions_of(settings: EvaluationSettings) -> tuple[Question, ...]:
    """Everything that is asked of a model, each question after those it builds on.

    Raises:
        RequestError: The evaluations do not go together.
    """
    asking = Asking(settings)
    for kind in kinds().values():
        kind.ask(asking)
    return tuple(asking.questions)


def answer_questions(subject: Subject, questions: Sequence[Question]) -> Iterator[tuple[Question, Answer]]:
    """Each question with its answer, as soon as it is known; in full precision, each with a stream of its own.

    In a team all processes put the same questions, and each gets the same columns; one of them tells how far they are.
    Predictions are added to `subject.predictions`. The answer's notes say the kind, the settings, how long it took and,
    of a search in two precisions, that.
    """
    if not subject.team.leads:
        subject = replace(subject, progress=Progress())
    for question in questions:
        began = time.monotonic()
        answer = _answer(question, subject)
        about = {"kind": question.kind, "settings": question.settings, "seconds": round(time.monotonic() - began, 3)}
        if question.precision != "float32":
            about["precision"] = question.precision
        if answer.column is not None and answer.column.dtype == torch.int64:
            subject.predictions[question.key] = answer.column.cpu().numpy()
        yield question, replace(answer, notes=about | answer.notes)


def _answer(question: Question, subject: Subject) -> Answer:
    """The answer, with the column that the first process of the team has; what keeps one from answering keeps all."""
    answers: list[Answer] = []

    def work() -> Tensor | None:
        with full_precision(subject.test.device):
            answers.append(kinds()[question.kind].answer(question, subject))
        return None if answers[0].column is None else answers[0].column.cpu()

    column, *_ = subject.team.share(work)
    return replace(answers[0], column=column)
