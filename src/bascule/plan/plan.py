"""A resolved study: which models to train, and what to ask of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bascule.core.catalog import describe, name_of
from bascule.evaluation.question import Question
from bascule.measure import Metric
from bascule.plan.document import Document
from bascule.plan.schema import EVALUATIONS, Published, Setup
from bascule.record.plan import PublishedValues, RecordedCell, RecordedPlan, RecordedRow, RecordedSeed


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model to train, and what is to be known about it."""

    fingerprint: str
    label: str
    """For people: row, what varies, seed."""
    setup: Setup
    given: dict[str, Any]
    """The settings that make the model, as written, before defaults."""
    seed: int
    questions: tuple[Question, ...]
    base: Cell | None = None
    """The cell whose model this one repairs, or filters its training data with."""
    proxy: Cell | None = None
    """The cell whose model the poisoned images are prepared against."""

    @property
    def needs(self) -> tuple[Cell, ...]:
        """Cells whose models must be there first."""
        return tuple(cell for cell in (self.base, self.proxy) if cell is not None)

    def settings(self) -> dict[str, Any]:
        """The settings that make the model, with defaults; evaluations are kept with their results."""
        return {key: value for key, value in describe(self.setup).items() if key not in EVALUATIONS}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells that differ only by seed, with their twins."""

    name: str
    vary: dict[str, Any]
    setup: Setup
    given: dict[str, Any]
    """Its settings as written, before defaults."""
    cells: tuple[Cell, ...]
    twins: tuple[Cell, ...]
    published: Published | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study, resolved: nothing about it can be refused any more but damaged pictures."""

    document: Document
    overrides: tuple[str, ...]
    title: str
    about: str
    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...]
    scale: str | None = None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.document.name

    @property
    def folder(self) -> str:
        """Name of the run folder: the study's name, and its scale where it has several."""
        return self.name if self.scale is None else f"{self.name}-{self.scale}"

    def cells(self) -> list[Cell]:
        """Every model once, in the order they are made: row by row within a seed, each after those it needs."""
        models: dict[str, Cell] = {}

        def add(cell: Cell) -> None:
            for needed in cell.needs:
                add(needed)
            known = models.get(cell.fingerprint)
            asked = (*(known.questions if known else ()), *cell.questions)
            questions = tuple({question.key: question for question in asked}.values())
            models[cell.fingerprint] = replace(known or cell, questions=questions)

        for place in range(max(len(row.cells) for row in self.rows)):
            for row in self.rows:
                for cell in (*row.cells[place : place + 1], *row.twins[place : place + 1]):
                    add(cell)
        return list(models.values())

    def recorded(self) -> RecordedPlan:
        """What the run folder keeps of the plan: enough to read the record without the components."""
        return RecordedPlan(
            study=self.name,
            scale=self.scale,
            title=self.title,
            about=self.about,
            overrides=self.overrides,
            text=self.document.text,
            metrics=tuple(map(name_of, self.metrics)),
            rows=tuple(map(_recorded_row, self.rows)),
        )


def _recorded_row(row: Row) -> RecordedRow:
    twins = row.twins or (None,) * len(row.cells)
    return RecordedRow(
        row=row.name,
        data=name_of(row.setup.data),
        vary=row.vary,
        target=row.setup.poison.target if row.setup.poison else None,
        settings=describe(row.setup),
        given=row.given,
        published=None if row.published is None else PublishedValues(**describe(row.published)),
        seeds=tuple(
            RecordedSeed(seed=cell.seed, cell=_recorded_cell(cell), twin=None if twin is None else _recorded_cell(twin))
            for cell, twin in zip(row.cells, twins, strict=True)
        ),
    )


def _recorded_cell(cell: Cell) -> RecordedCell:
    return RecordedCell(fingerprint=cell.fingerprint, questions=tuple(question.recorded for question in cell.questions))
