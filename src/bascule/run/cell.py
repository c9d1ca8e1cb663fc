"""Doing one cell: make its model unless it is there, then every evaluation that is not recorded yet."""

from __future__ import annotations

import time

from bascule.evaluate.evaluate import Job, evaluated
from bascule.plan.plan import Cell
from bascule.plan.questions import Link
from bascule.record.cell import CellRecord
from bascule.record.run import RunRecord
from bascule.run.context import RunContext
from bascule.run.make import load_model, make


def missing_links(cell: Cell, record: CellRecord) -> list[Link]:
    """Evaluations of the cell that are not recorded."""
    done = record.done()
    return [link for link in cell.links if link.key not in done]


def is_done(cell: Cell, record: CellRecord) -> bool:
    """Whether the record holds everything the cell asks for."""
    return record.trained and not missing_links(cell, record)


def do_cell(cell: Cell, run: RunRecord, workshop: RunContext) -> None:
    """Everything of the cell that is not recorded yet.

    Raises:
        DivergedError: The training did not stay finite.
        NotMadeError: A model that this one is made from is not there.
        RequestError: The data cannot be read, or an evaluation does not fit them.
    """
    record = run.cell(cell.fingerprint)
    model = load_model(cell, run, workshop) if record.trained else make(cell, run, workshop)
    splits = workshop.data(cell)
    test = splits.test.to(workshop.device)
    for link in missing_links(cell, record):
        began = time.monotonic()
        answer = evaluated(Job(cell, link, run, workshop, model, test))
        seconds = round(time.monotonic() - began, 3)
        info = {"kind": link.kind, "settings": link.settings, "seconds": seconds, **answer.notes}
        if answer.arrays:
            record.add_finding(link.key, {name: values.cpu().numpy() for name, values in answer.arrays.items()}, info)
        if answer.column is not None:
            parts = (values.cpu().numpy() for values in (test.ids, test.labels, answer.column))
            record.add_outcomes(*parts, key=link.key, info=info)
