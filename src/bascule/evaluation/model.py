"""One model, evaluated in memory: asked the same questions in the same way as the models of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from bascule.core.images import Images, Shown
from bascule.core.progress import Progress
from bascule.evaluation.question import EvaluationSettings
from bascule.evaluation.run import answer_questions, questions_of
from bascule.evaluation.subject import Subject
from bascule.metrics.contract import Labels
from bascule.record.answers import Answers, Finding, Radii
from bascule.record.evaluation import Evaluation, evaluation_of
from bascule.triggers.contract import Trigger


def evaluate_model(
    model: nn.Module,
    test: Shown,
    settings: EvaluationSettings,
    *,
    seed: int,
    progress: Progress,
    found: Callable[[Trigger], Trigger] = lambda trigger: trigger,
) -> Evaluation:
    """Ask the model everything and measure it.

    Args:
        model: From [0, 1] images to logits. Found as it was afterwards.
        test: Images on the device of the model.
        settings: What to ask and measure.
        seed: Of everything that is drawn.
        progress: Where to tell how far it is.
        found: Looks up what a trigger is that was searched for.
    """
    questions = questions_of(settings)
    subject = Subject(model=model, test=test, seed=seed, questions=questions, progress=progress, found=found)
    predictions: dict[str, Labels] = {}
    radii: dict[str, Radii] = {}
    findings: dict[str, Finding] = {}
    notes: dict[str, Mapping[str, Any]] = {}
    for question, answer in answer_questions(subject, questions):
        notes[question.key] = answer.notes
        if answer.arrays:
            findings[question.key] = Finding(answer.numpy_arrays(), answer.notes)
        if answer.column is not None:
            column = answer.column.cpu().numpy()
            (predictions if column.dtype == np.int64 else radii)[question.key] = column
    ids = test.ids.cpu().numpy() if isinstance(test, Images) else np.arange(len(test))
    answers = Answers(
        id=ids, label=subject.labels, predictions=predictions, radii=radii, findings=findings, notes=notes
    )
    asked = [question.recorded for question in questions]
    return evaluation_of(answers, asked, settings.metrics, target=settings.target, aims=settings.aims)
