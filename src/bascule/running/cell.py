"""Doing one cell: make its model unless it is there, then answer every question that is not answered yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from bascule.core.ahead import reading_as
from bascule.core.errors import RequestError
from bascule.evaluation.question import Question
from bascule.evaluation.run import answer_questions
from bascule.evaluation.subject import Answer, Subject
from bascule.metrics.contract import Labels
from bascule.plan.plan import Cell
from bascule.record.cell import CellRecord
from bascule.record.lock import lock_cell
from bascule.record.mending import clear_cell
from bascule.running.context import CellContext, RunContext
from bascule.running.make import lost_parts, make_lost_parts, make_model
from bascule.running.provenance import provenance

_PATIENCE = 30.0
"""Seconds that the lock of a process which was lost, or what is kept of it, may outlast it."""


def open_questions(cell: Cell, record: CellRecord) -> list[Question]:
    """Questions about the cell that are not answered yet."""
    done = record.done()
    return [question for question in cell.questions if question.key not in done]


def is_done(cell: Cell, record: CellRecord) -> bool:
    """Whether the record holds everything the cell asks for."""
    ended = record.info().get("finished", True) is not None
    return record.trained and ended and not open_questions(cell, record) and not lost_parts(cell, record)


@dataclass(frozen=True)
class Failure:
    """A cell that could not be finished."""

    label: str
    message: str


def record_failure(cell: Cell, run: RunContext, kind: str, message: str) -> None:
    """Keep in the cell's record why it could not be finished, for a process that cannot do so itself any more.

    Where another one is at the cell by now, that is for it to say.
    """
    with lock_cell(run.record.cell(cell.fingerprint).path, patience=_PATIENCE) as free:
        if free:
            _keep_failure(cell, run, kind, message)


def _keep_failure(cell: Cell, run: RunContext, kind: str, message: str) -> None:
    record = run.record.cell(cell.fingerprint)
    known = record.info() or {"fingerprint": cell.fingerprint, "seed": cell.seed, "settings": cell.settings()}
    failure = {"kind": kind, "message": message}
    record.write_info(
        {**known, **provenance(run.device, command=run.command, processes=run.team.size), "failure": failure}
    )


def try_cell(cell: Cell, run: RunContext) -> str | None:
    """Do one cell, alone at it: as soon as nobody else is. On failure record it and return the reason.

    Raises:
        RequestError: The request itself is wrong (damaged data); nothing is recorded against the cell.
    """
    record = run.record.cell(cell.fingerprint)
    if not run.team.leads:
        return _try_alone(cell, run, record)
    with lock_cell(record.path):
        clear_cell(record.path)
        # Of a team all have been told to do it.
        return None if run.team.size == 1 and is_done(cell, record) else _try_alone(cell, run, record)


def _try_alone(cell: Cell, run: RunContext, record: CellRecord) -> str | None:
    try:
        with reading_as(run.speed.reading):
            do_cell(cell, run)
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        if not run.team.is_common(error):
            raise
        # Whatever breaks one cell (a diverged training, no memory left, a bug in a user's model) leaves the others be;
        # Ctrl-C is no SystemExit.
        message = repr(error) if isinstance(error, SystemExit) else f"{error}" or type(error).__name__
        kind = type(error).__name__
        run.team.first(lambda: _keep_failure(cell, run, kind, message))
        return message
    run.team.first(lambda: _finish(record))
    return None


def _finish(record: CellRecord) -> None:
    """Note when the cell was finished, the first time, and that it has not failed."""
    info = record.info()
    if info.get("failure") is not None or info.get("finished", True) is None:
        ended = info.get("finished") or datetime.now(UTC).isoformat(timespec="seconds")
        record.write_info({**info, "failure": None, "finished": ended})


def do_cell(cell: Cell, run: RunContext) -> None:
    """Everything of the cell that is not recorded yet.

    Raises:
        DivergedError: The training did not stay finite.
        NotMadeError: A model that this one is made from is not there.
        RequestError: The data cannot be read, or an evaluation does not fit them.
    """
    context, team = CellContext(cell, run), run.team
    if team.first(lambda: context.record.trained):
        model = context.load_model()
        team.first(lambda: make_lost_parts(context.alone(), model))
    else:
        model = make_model(context)
    test = context.test
    questions, known = team.first(lambda: ([q.key for q in open_questions(cell, context.record)], _known(context)))
    subject = Subject(
        model=model,
        test=test,
        seed=cell.seed,
        questions=cell.questions,
        predictions=known,
        progress=run.progress,
        training=lambda: context.training_set,
        held_out=lambda: context.held_out,
        clean=lambda: context.clean,
        found=context.found,
        team=team,
    )
    asked = [question for question in cell.questions if question.key in questions]
    for question, answer in answer_questions(subject, asked):
        team.first(partial(_keep, context, question, answer))


def _known(context: CellContext) -> dict[str, Labels]:
    """Predictions recorded so far, in the order of the test images."""
    answers = context.record.answers()
    places = np.searchsorted(answers.id, context.test.ids.cpu().numpy())
    return {key: values[places] for key, values in answers.predictions.items()}


def _keep(context: CellContext, question: Question, answer: Answer) -> None:
    if answer.arrays:
        context.record.add_finding(question.key, answer.numpy_arrays(), answer.notes)
    if answer.column is not None:
        ids, labels, values = (part.cpu().numpy() for part in (context.test.ids, context.test.labels, answer.column))
        context.record.add_outcomes(ids, labels, values, key=question.key, info=answer.notes)
