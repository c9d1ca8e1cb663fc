"""Which runs are looked at, what each is called beside the others, and their rows together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bascule.core.errors import RequestError
from bascule.record.rows import RowResult, read_rows
from bascule.record.run import RunRecord, open_run


def open_runs(names: Sequence[str], runs_dir: Path) -> list[RunRecord]:
    """The record of each RUN, as `open_run` finds it.

    Raises:
        RequestError: There is no such run, or two names lead to the same folder.
    """
    given: dict[Path, str] = {}
    records = []
    for name in names:
        record = open_run(name, runs_dir)
        place = record.path.resolve()
        if place in given:
            other = "" if given[place] == name else f", also as {given[place]!r}"
            raise RequestError(f"run {name!r} is given twice{other} ({record.path}): give each run once")
        given[place] = name
        records.append(record)
    return records


def run_names(records: Sequence[RunRecord]) -> list[str]:
    """What each run is called beside the others: the shortest end of its path that no other has. Nothing for one alone.

    Not its title or study: two runs may share these.
    """
    if len(records) == 1:
        return [""]
    paths = [record.path.resolve().parts for record in records]
    return [_shortest(path, [other for other in paths if other is not path]) for path in paths]


def _shortest(path: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    lengths = (size for size in range(1, len(path)) if all(path[-size:] != other[-size:] for other in others))
    return "/".join(path[-next(lengths, len(path)) :])


def rows_by_run(records: Sequence[RunRecord]) -> list[tuple[str, list[RowResult]]]:
    """The name of each run with its rows, which carry it too.

    Raises:
        RequestError: A plan is missing or damaged.
    """
    named = zip(run_names(records), records, strict=True)
    return [(name, [replace(row, run=name) for row in read_rows(record)]) for name, record in named]


def rows_of(records: Sequence[RunRecord]) -> list[RowResult]:
    """All rows, run by run."""
    return [row for _, rows in rows_by_run(records) for row in rows]
