"""A question dealt out to two processes has the answer of one process, byte for byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.pgd import Pgd
from bascule.attacks.square import Square
from bascule.certifiers.smoothing import Smoothing
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.progress import Progress
from bascule.core.team import ALONE, Team, joined
from bascule.evaluation.kinds import kinds
from bascule.evaluation.question import EvaluationSettings, Question
from bascule.evaluation.retuning import Retuning
from bascule.evaluation.run import answer_questions, questions_of
from bascule.evaluation.subject import BATCH, Answer, Subject
from bascule.metrics.contract import MISSING
from bascule.testing import cases
from bascule.triggers.sticker import Sticker
from teams import together

WHITE = BATCH + 20
"""An image of the second batch, which the second process has."""


class NearestMean(nn.Module):
    """Takes a digit for the class whose mean image is nearest; white pictures may break it."""

    def __init__(self, breaks: bool = False) -> None:
        super().__init__()
        train = cases.digits().train
        x = train.batch(torch.arange(len(train))).flatten(1)
        means = torch.stack([x[train.labels == label].mean(0) for label in range(10)])
        self.means, self.breaks = nn.Parameter(4 * means), breaks
        self.bias = nn.Parameter(-2 * means.square().sum(1))

    def forward(self, x: Tensor) -> Tensor:
        logits = x.flatten(1) @ self.means.T + self.bias
        broken = (x.mean((1, 2, 3)) == 1) & self.breaks
        return logits.masked_fill(broken[:, None], torch.nan)


class Everything:
    """Stands for a metric that wants every kind of question."""

    needs = tuple(kinds())


class Heard(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, int, int, str]] = []

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        self.name, self.total = name, total
        yield

    def update(self, done: int, note: str = "") -> None:
        self.said.append((self.name, self.total, done, note))


def subject(model: nn.Module, *, of: type[Subject] = Subject, **changes: Any) -> Subject:
    asked = EvaluationSettings(
        test="of these images",
        attack=(Square(eps=0.08, queries=30), Pgd(eps=0.08, steps=2, restarts=2)),
        trigger=Sticker(size=2, position="random"),
        target=7,
        curve=(0.05,),
        certify=(Smoothing(sigma=0.1, n0=10, n=50, eps=0.02),),
        detect=catalog.build("detect", {"name": "strip", "overlays": 2}),
        retune=Retuning(images=60, poisoned=6, epochs=1),
        metrics={"everything": Everything()},  # type: ignore[dict-item]
    )
    digits = cases.digits()
    given = {
        "model": model.eval(), "test": digits.train, "seed": 3, "questions": questions_of(asked),
        "held_out": lambda: digits.test, "clean": lambda: digits.test,
    }  # fmt: skip
    return of(**(given | changes))


def answered(team: Team) -> list[tuple[Question, Answer]]:
    of = subject(NearestMean(), team=team)
    return list(answer_questions(of, of.questions))


def digests(answers: list[tuple[Question, Answer]]) -> dict[str, str]:
    """What was answered, as bytes, by key."""
    return {
        question.key: hashlib.sha256(
            b"".join(
                f"{name} {values.dtype}".encode() + values.numpy().tobytes()
                for name, values in {"column": answer.column, **answer.arrays}.items()
                if values is not None
            )
        ).hexdigest()
        for question, answer in answers
    }


def refused(of: Subject) -> str:
    """What keeps this process from having the answers."""
    with pytest.raises((RequestError, OSError, RuntimeError)) as caught:
        list(answer_questions(of, of.questions))
    return f"{caught.type.__name__}: {caught.value}"


class Breaks(Subject):
    """Cannot say in the second process whom an attack meets, while the first one attacks."""

    def right(self, keys: Any) -> Any:
        if self.team.rank == 1:
            raise OSError("no disk")
        return super().right(keys)


def member(team: Team) -> str:
    """What a process of a team has to say in the end."""
    heard, digits = Heard(), cases.digits().train
    of = subject(NearestMean(), team=team, progress=heard)
    asked = [question for question in of.questions if question.kind in ("clean", "attack")][:2]
    list(answer_questions(of, asked))
    pixels = digits.pixels.clone()  # type: ignore[attr-defined]
    pixels[WHITE] = 255
    nan = refused(subject(NearestMean(breaks=True), team=team, test=replace(digits, pixels=pixels)))
    lost = refused(subject(NearestMean(), team=team, of=Breaks))
    said = {"answers": digests(answered(team)), "heard": heard.said, "nan": nan, "lost": lost}
    return json.dumps({**said, "still there": team.gather(team.rank)})


PROGRAM = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_team; test_team.joined_member()"


def joined_member() -> None:
    """Run in each process."""
    with joined() as team:
        print(member(team))  # noqa: T201


@pytest.fixture(scope="module")
def alone() -> list[tuple[Question, Answer]]:
    return answered(ALONE)


@pytest.fixture(scope="module")
def both() -> list[dict[str, Any]]:
    return [json.loads(said) for said in together(PROGRAM)]


def test_two_processes_answer_as_one(alone, both) -> None:
    expected = digests(alone)
    assert {question.kind for question, _ in alone} >= {"attack", "curve", "certify", "attack-then-trigger", "detect"}
    assert [one["answers"] for one in both] == [expected, expected]


def test_the_answers_say_something(alone) -> None:
    labels = cases.digits().train.labels
    columns = {question.key: answer.column for question, answer in alone}
    attacked = [columns[question.key] for question, _ in alone if question.kind == "attack"]
    for column in attacked:
        wanted = column != MISSING
        assert int(wanted.sum()) > BATCH, "one batch"
        assert int((column != labels)[wanted].sum()) > 0
    (radii,) = (columns[question.key] for question, _ in alone if question.kind == "certify")
    assert 0 < int((radii > 0).sum()) < len(radii)


def test_a_detector_meets_the_images_of_the_attack(alone) -> None:
    (attacked, _), (_, found) = (next(one for one in alone if one[0].kind == kind) for kind in ("attack", "detect"))
    column = next(answer.column for question, answer in alone if question.key == attacked.key)
    met = column != MISSING
    assert int(met.sum()) > 2 * BATCH
    assert torch.equal(found.arrays["adversarial_prediction"][met], column[met])


def test_nobody_waits_for_one_that_cannot_answer(both) -> None:
    nan = "RequestError: the model answers 1 of the 500 images that were tried with NaN; such a model has no accuracy"
    assert [one["nan"] for one in both] == [nan, nan]
    assert [one["lost"] for one in both] == ["RuntimeError: process 1 of 2: OSError: no disk", "OSError: no disk"]
    assert [one["still there"] for one in both] == [[0, 1]] * 2


def test_the_first_process_tells_how_far_they_are(both) -> None:
    first, second = (one["heard"] for one in both)
    assert second == []
    total = first[0][1]
    assert [said[:3] for said in first] == [["square", total, 2 * BATCH], ["square", total, total]]
    assert [said[3].split()[2:] for said in first] == [["of", "500"], ["of", str(total - BATCH)]]


def test_a_set_of_one_batch_draws_from_the_stream_of_its_question(alone) -> None:
    of, (question, _) = subject(NearestMean()), alone[2]
    first, own, second = of.generator(question, batch=0), of.generator(question), of.generator(question, batch=1)
    assert first.initial_seed() == own.initial_seed() != second.initial_seed()
