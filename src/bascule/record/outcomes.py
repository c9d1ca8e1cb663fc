"""From the answers of one model to what the metrics are computed from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bascule.metrics.contract import MISSING, Judgement, Labels, Outcomes, Verdict
from bascule.metrics.detection import SORTS, Detection, Inputs
from bascule.record.answers import Answers, Finding
from bascule.record.cell import FILTERED, ISOLATED
from bascule.record.plan import RecordedQuestion

Questions = Sequence[RecordedQuestion]

_OWN_FIELD = frozenset(
    {"clean", "triggered", "attack", "attack-triggered", "toward", "away", "strength", "certify", "curve"}
)
"""Kinds of questions about images whose answers have a field of `Outcomes`, or are read elsewhere."""


def outcomes_of(
    answers: Answers,
    questions: Questions,
    *,
    target: int | None,
    aims: Sequence[int] | None = None,
    before: Outcomes | None = None,
    twin: Outcomes | None = None,
    hidden: Collection[str] = (),
) -> Outcomes:
    """What a model answered, by kind of question; what is not answered yet, or `hidden`, is left out."""
    return Outcomes(
        label=answers.label,
        id=answers.id,
        clean=_first(answers, questions, "clean"),
        triggered=_first(answers, questions, "triggered"),
        adversarial=_all(answers, questions, "attack"),
        attacks=len(_keys(questions, "attack")),
        triggered_adversarial=_all(answers, questions, "attack-triggered"),
        toward=_first(answers, questions, "toward"),
        away=_first(answers, questions, "away"),
        strengths={
            question.value: answers.predictions[question.key]
            for question in questions
            if question.kind == "strength" and question.value is not None and question.key in answers.predictions
        },
        certified=_certified(answers, questions),
        target=target,
        aims=aims,
        judgement=_judgement(answers, questions, hidden),
        verdict=_verdict(answers, questions),
        detection=_detection(answers, questions),
        attention=_attention(answers, questions),
        more={
            kind: [
                (question.value, answers.predictions[question.key])
                for question in questions
                if question.kind == kind and question.key in answers.predictions
            ]
            for kind in dict.fromkeys(question.kind for question in questions)
            if kind not in _OWN_FIELD
        },
        before=before,
        twin=twin,
    )


def _keys(questions: Questions, kind: str) -> list[str]:
    return [question.key for question in questions if question.kind == kind]


def _all(answers: Answers, questions: Questions, kind: str) -> list[Labels]:
    """Predictions of one kind that are known, in order."""
    return [answers.predictions[key] for key in _keys(questions, kind) if key in answers.predictions]


def _first(answers: Answers, questions: Questions, kind: str) -> Labels | None:
    return next(iter(_all(answers, questions, kind)[:1]), None)


def _certified(answers: Answers, questions: Questions) -> NDArray[np.bool_] | None:
    """Whether any of the certifiers, each with the radius asked of it, proves an image; None while one is missing."""
    asked = [(question.key, question.reach) for question in questions if question.kind == "certify"]
    if not asked or not all(key in answers.radii for key, _ in asked):
        return None
    balls = [(key, reach.eps) for key, reach in asked if reach is not None and reach.eps is not None]
    return np.logical_or.reduce([answers.radii[key] >= eps for key, eps in balls])


# --- answers that are not one value per test image -------------------------------------------------------------------


def _findings(answers: Answers, keys: Iterable[str]) -> Iterator[Finding]:
    return (answers.findings[key] for key in keys if key in answers.findings)


def _judgement(answers: Answers, questions: Questions, hidden: Collection[str]) -> Judgement | None:
    """What the row's filter said: of the training set it was retrained on, or only inspected; or its own training.

    None also where nobody knows which images are poisoned.
    """
    keys = [key for key in (FILTERED, *_keys(questions, "inspect"), ISOLATED) if key not in hidden]
    for finding in _findings(answers, keys):
        return judgement_of(finding) if "poisoned" in finding.arrays else None
    return None


def judgement_of(finding: Finding) -> Judgement:
    """What a filter said of the training set."""
    parts = finding.arrays
    return Judgement(score=parts["score"], removed=parts["removed"], poisoned=parts["poisoned"])


def _verdict(answers: Answers, questions: Questions) -> Verdict | None:
    for finding in _findings(answers, _keys(questions, "scan")):
        return verdict_of(finding)
    return None


def verdict_of(finding: Finding) -> Verdict:
    """What a scanner said of a model."""
    anomaly = np.asarray(finding.arrays["anomaly"], dtype=np.float64)
    suspects = tuple(int(label) for label in finding.info.get("suspects", ()))
    return Verdict(anomaly=anomaly, suspects=suspects, overlap=finding.info.get("overlap"))


def _detection(answers: Answers, questions: Questions) -> Detection | None:
    for finding in _findings(answers, _keys(questions, "detect")):
        return detection_of(finding, answers.id)
    return None


def detection_of(finding: Finding, ids: Labels) -> Detection:
    """What a test-time detector said of the inputs made of the images with these ids; nothing of one it never met."""
    parts = finding.arrays
    order = np.argsort(parts["id"], kind="stable")
    places = np.searchsorted(parts["id"], ids, sorter=order).clip(max=len(order) - 1)
    places = order[places]
    unknown = parts["id"][places] != ids

    def inputs(sort: str) -> Inputs:
        suspicion, prediction = (parts[f"{sort}_{name}"][places] for name in ("suspicion", "prediction"))
        suspicion[unknown], prediction[unknown] = np.nan, MISSING
        return Inputs(suspicion=suspicion, prediction=prediction)

    sorts = {sort: inputs(sort) for sort in SORTS if f"{sort}_suspicion" in parts}
    return Detection(calm=parts["calm"], thresholds=parts["thresholds"], sorts=sorts)


def _attention(answers: Answers, questions: Questions) -> NDArray[np.float64] | None:
    for finding in _findings(answers, _keys(questions, "explain")):
        if "attention" in finding.arrays:
            return np.asarray(finding.arrays["attention"], dtype=np.float64)
    return None
