"""Rows that stand for the same models: what varies between them is only what is asked of these."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from bascule.report.view import RowView
from bascule.report.words import joined, setting


def merge(rows: Sequence[RowView], same: Callable[[RowView], Hashable | None]) -> list[RowView]:
    """One row for all of a run with the same models and answer of `same`; those without an answer are left out.

    Its name keeps what the rows share, and tells which they are where they are not all of that name.
    """
    groups: dict[Hashable, list[RowView]] = {}
    for row in rows:
        answer = same(row)
        if answer is not None:
            models = tuple(cell.fingerprint for cell in (*row.cells, *row.twins))
            groups.setdefault((row.result.run, models, answer), []).append(row)
    return [group[0] if len(group) == 1 else _together(group, rows) for group in groups.values()]


_BOTH_ENDS = ("clean", "triggered", "attack", "certify")
"""Evaluations that the numbers of both ends rest on."""


def distinct(rows: Sequence[RowView]) -> list[RowView]:
    """Rows that differ only in what is asked besides both ends come once: nothing else would be said of the others."""
    return merge(rows, _asked_of_both_ends)


def _asked_of_both_ends(row: RowView) -> Hashable:
    return tuple(cell.keys(kind) for cell in row.cells for kind in _BOTH_ENDS)


def _together(group: Sequence[RowView], rows: Sequence[RowView]) -> RowView:
    first = group[0].result
    values = {path: list(dict.fromkeys(setting(row.result.vary.get(path)) for row in group)) for path in first.vary}
    shared = {path: value for path, value in first.vary.items() if len(values[path]) == 1}
    others = [
        row
        for row in rows
        if all(row is not one for one in group)
        and row.result.name == first.name
        and all(row.result.vary.get(path) == value for path, value in shared.items())
    ]
    if others:
        shared = {path: first.vary[path] if len(some) == 1 else joined(some, "or") for path, some in values.items()}
    name = joined(list(dict.fromkeys(row.result.row for row in group)))
    return replace(group[0], result=replace(first, row=name, vary=shared))
