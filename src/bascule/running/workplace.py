"""What another process needs to work like this one, on this machine or another."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bascule.core import catalog
from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.core.progress import Progress
from bascule.plan.plan import Cell
from bascule.record.run import RunRecord
from bascule.running.cell import try_cell
from bascule.running.context import RunContext
from bascule.running.telling import Telling

SHARED = "must be on storage that every node shares, at the same place"


def code_of_cell(cell: Cell) -> dict[str, str]:
    """The user's code that a cell needs, made, asked or only packed: its names, with what identifies each."""
    names = dict.fromkeys(_names_of(cell))
    return {name: catalog.code_of(catalog.load("models", name), name) for name in names}


def _names_of(cell: Cell) -> Iterator[str]:
    # A twin knows the trigger from its questions alone; and a cell is sent with those that it needs.
    yield from _names(describe(cell.setup))
    for question in cell.questions:
        yield from _names(question.settings)
    if cell.watch is not None:
        yield from _names(describe(cell.watch.trigger))
    for other in cell.made_from:
        yield from _names_of(other)


def _names(settings: Any) -> Iterator[str]:
    """Names `module:attribute` among the settings."""
    if isinstance(settings, Mapping):
        name = settings.get("name")
        if isinstance(name, str) and ":" in name:
            yield name
        for value in settings.values():
            yield from _names(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _names(value)


@dataclass(frozen=True)
class Workplace:
    """What a worker, wherever it runs, needs to work like this process: nothing depends on the folder it started in."""

    run: RunContext
    home: str
    """The current folder of this process, which relative paths in a study start from."""

    @classmethod
    def of(cls, run: RunContext) -> Workplace:
        """That of this process; data and progress stay here."""
        shared = replace(
            run,
            record=RunRecord(run.record.path.absolute()),
            roots=tuple(root.absolute() for root in run.roots),
            progress=Progress(),
            telling=Telling(run.telling.names),
            _splits=None,
            _held_out=None,
            _key="",
        )
        return cls(shared, str(Path.cwd()))

    def do(self, content: bytes, code: Mapping[str, str]) -> str | None:
        """Do the cell in `content`; the reason if it fails. The data it read are kept for the next one.

        Args:
            content: The cell, still packed: its classes may be those of the user's code.
            code: That code's names, with what identifies each.
        """
        with contextlib.suppress(OSError):  # a node without this folder can do what names no file in it
            os.chdir(self.home)
        catalog.recall([{"name": name, "code": identity} for name, identity in code.items()])  # of earlier versions
        for name, identity in code.items():
            try:
                same = catalog.code_of(catalog.load("models", name), name) == identity
            except RequestError as error:
                return f"its code cannot be read on a worker ({error}): it {SHARED}"
            if not same:
                return f"{name} is another one on a worker: it {SHARED}"
        return try_cell(pickle.loads(content), self.run)
