"""A resolved study: which models to train, and what to ask of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bascule.core.catalog import describe, name_of
from bascule.measure import Metric
from bascule.plan.document import Document
from bascule.plan.questions import Link
from bascule.plan.schema import EVALUATIONS, Published, Setup


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
    links: tuple[Link, ...]
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
        found: dict[str, Cell] = {}

        def add(cell: Cell) -> None:
            for needed in cell.needs:
                add(needed)
            known = found.get(cell.fingerprint)
            links = {link.key: link for link in (*(known.links if known else ()), *cell.links)}
            found[cell.fingerprint] = replace(known or cell, links=tuple(links.values()))

        for place in range(max(len(row.cells) for row in self.rows)):
            for row in self.rows:
                for cell in (*row.cells[place : place + 1], *row.twins[place : place + 1]):
                    add(cell)
        return list(found.values())

    def as_dict(self) -> dict[str, Any]:
        """What the run folder keeps of the plan: enough to read the record without the components."""
        return {
            "study": self.name,
            "scale": self.scale,
            "title": self.title,
            "about": self.about,
            "overrides": list(self.overrides),
            "text": self.document.text,
            "metrics": [name_of(metric) for metric in self.metrics],
            "rows": [
                {
                    "row": row.name,
                    "data": name_of(row.setup.data),
                    "vary": row.vary,
                    "target": row.setup.poison.target if row.setup.poison else None,
                    "settings": describe(row.setup),
                    "given": row.given,
                    "published": describe(row.published),
                    "cells": [_seed_entry(row, place) for place in range(len(row.cells))],
                }
                for row in self.rows
            ],
        }


def _seed_entry(row: Row, place: int) -> dict[str, Any]:
    cell = row.cells[place]
    twin = row.twins[place] if row.twins else None
    return {
        "seed": cell.seed,
        "cell": cell.fingerprint,
        "twin": twin.fingerprint if twin else None,
        "columns": _columns(cell),
        "twin_columns": _columns(twin) if twin else {},
        "balls": {link.key: link.reach for link in cell.links if link.reach is not None},
        "values": {link.key: link.value for link in cell.links if link.value is not None},
    }


def _columns(cell: Cell) -> dict[str, list[str]]:
    """Keys of the cell's evaluations by kind, in order."""
    columns: dict[str, list[str]] = {}
    for link in cell.links:
        columns.setdefault(link.kind, []).append(link.key)
    return columns
