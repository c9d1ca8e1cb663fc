"""Every figure of the report and its tables as files, for papers and slides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bascule.core.files import write_atomically
from bascule.core.text import printable
from bascule.record.run import RunRecord
from bascule.report.drawing import svg
from bascule.report.drawing.figure import Figure, Form
from bascule.report.panels import panels
from bascule.report.tables import tables
from bascule.report.view import RowView, view_of

TABLES: dict[str, tables.Format] = {"csv": "csv", "json": "json", "md": "markdown", "tex": "latex"}
"""Formats of the table by the ending of its file."""


def export(runs: Sequence[RunRecord], folder: Path, *, forms: Sequence[Form] = ("svg", "png", "pdf")) -> list[Path]:
    """Write the figures in each of `forms`, the table in all formats, and `figures.md`, which says what each figure is.

    Files of these names are replaced, others left. The same records give the same bytes.

    Raises:
        RequestError: A record is missing or damaged.
    """
    view = view_of(runs)
    with svg.drawing():
        figures = [figure for panel in panels() for figure in _figures(panel.context(view))]
    written = [_saved(figure, folder, form) for figure in figures for form in forms]
    rows = [row.result for row in view.rows]
    texts = {f"table.{ending}": tables.render(rows, form) for ending, form in TABLES.items()}
    texts["figures.md"] = "".join(
        f"- `{figure.name}`: {printable(' '.join(figure.label.split()))}\n" for figure in figures
    )
    return written + [_written(folder / name, text) for name, text in texts.items()]


def _saved(figure: Figure, folder: Path, form: Form) -> Path:
    path = folder / f"{figure.name}.{form}"
    write_atomically(path, lambda temporary: figure.save(temporary, form))
    return path


def _written(path: Path, text: str) -> Path:
    # Half a surrogate pair, which JSON can hold, has no place in a file.
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", errors="replace")))
    return path


def _figures(value: Any) -> Iterator[Figure]:
    """The figures among the variables of a panel's template, in order."""
    match value:
        case Figure():
            yield value
        case RowView():
            return
        case Mapping():
            for item in value.values():
                yield from _figures(item)
        case list() | tuple():
            for item in value:
                yield from _figures(item)
        case _ if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from _figures(getattr(value, field.name))
