"""A run as pandas frames: rows, models, and every answer of every model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bascule.core.documented import documented
from bascule.core.grid import Grid, TableCell
from bascule.core.optional import import_optional
from bascule.core.shown import Part, by_identity, html_of, text_of
from bascule.metrics.contract import MISSING
from bascule.metrics.interval import summarise
from bascule.report.view import CellView, RowView, View

if TYPE_CHECKING:
    import pandas


@documented
@by_identity
class Frames(NamedTuple):
    """A run, finished or not; what is not known is missing, never 0."""

    rows: pandas.DataFrame
    """One line per row of the table: `row`, `data`, what varies, `seeds`, each metric with `_low`, `_high` and `_n`."""
    cells: pandas.DataFrame
    """One line per model: `row`, what varies, `seed`, `twin`, `cell` (its folder), what `cell.json` says of the
    training, and each metric of this seed alone (none for a twin, which is a control)."""
    outcomes: pandas.DataFrame
    """One line per model and test image: `row`, what varies, `seed`, `twin`, `cell`, `id`, `label`, and one column per
    evaluation: `clean`, `triggered`, `attack/pgd`, `certify/interval`. Predicted labels, or certified radii. An
    evaluation that occurs twice in a row's plan, with other settings, has a number: `attack/pgd 2`. An image that was
    fooled by one attack is not given to the next, and has no prediction there."""

    def __repr__(self) -> str:
        return text_of(self._parts())

    def _repr_html_(self) -> str:
        return html_of(self._parts())

    def _parts(self) -> list[Part]:
        lines = [
            [
                *map(
                    TableCell,
                    (name, f"{len(frame):,}", f"{len(frame.columns):,}", ", ".join(map(str, frame.columns[:6]))),
                )
            ]
            for name, frame in zip(self._fields, self, strict=True)
        ]
        return [Grid(["Frame"], ["Lines", "Columns", "The first of them"], lines)]


def frames_of(view: View) -> Frames:
    """The frames of one run.

    Raises:
        RequestError: pandas is missing.
    """
    pd = import_optional("pandas", extra="frames")
    cells, outcomes = [], []
    for row, cell in view.runs[0].cells():
        cells.append(_cell(view, row, cell))
        outcomes.append(pd.DataFrame(_key(row, cell) | _answers(cell)))
    columns = [*_key(view.rows[0], view.rows[0].cells[0]), "id", "label"]
    numbers = {f"{name}{part}": "float64" for name in view.metrics for part in ("", "_low", "_high")}
    counts = {f"{name}_n": "Int64" for name in view.metrics}
    facts = {"seconds": "float64", "poisoned": "Int64", "parameters": "Int64"} | dict.fromkeys(view.metrics, "float64")
    return Frames(
        rows=pd.DataFrame([_row(row) for row in view.rows]).astype(numbers | counts),
        cells=pd.DataFrame(cells).astype(facts),
        outcomes=pd.concat(outcomes, ignore_index=True) if outcomes else pd.DataFrame(columns=columns),
    )


def _row(row: RowView) -> dict[str, Any]:
    line: dict[str, Any] = {"study": row.result.study, "row": row.result.row, "data": row.result.data}
    line |= {**row.result.vary, "seeds": row.result.seeds}
    for name, measure in row.result.metrics.items():
        line |= {name: measure.value, f"{name}_low": measure.low, f"{name}_high": measure.high, f"{name}_n": measure.n}
    return line | {"flags": "; ".join(row.result.flags)}


def _key(row: RowView, cell: CellView) -> dict[str, Any]:
    return {"row": row.result.row, **row.result.vary, "seed": cell.seed, "twin": cell.twin, "cell": cell.fingerprint}


def _cell(view: View, row: RowView, cell: CellView) -> dict[str, Any]:
    info = cell.info
    outcomes = None if cell.twin else row.result.outcomes.get(cell.seed)
    metrics = {
        name: None if outcomes is None else summarise(metric, [outcomes]).value for name, metric in view.metrics.items()
    }
    return _key(row, cell) | {
        "done": cell.done,
        "failure": cell.failure,
        "poisoned": info.get("poisoned"),
        "parameters": info.get("parameters"),
        "started": info.get("started"),
        "seconds": info.get("seconds"),
        "device": (info.get("host") or {}).get("device"),
        "commit": info.get("commit"),
        **metrics,
    }


def _answers(cell: CellView) -> dict[str, Any]:
    """Columns of one model: labels as nullable integers, radii as floats; no lines before the clean evaluation."""
    pd = import_optional("pandas", extra="frames")
    answers = cell.record.answers_to(cell.planned)
    if answers is None:
        nothing = np.empty(0, dtype=np.int64)
        return {"id": nothing, "label": nothing}
    columns: dict[str, Any] = {"id": answers.id, "label": answers.label}
    for key, name in _names(cell).items():
        if key in answers.predictions:
            labels = answers.predictions[key]
            columns[name] = pd.array(np.where(labels == MISSING, 0, labels), dtype="Int64")
            columns[name][labels == MISSING] = pd.NA
        elif key in answers.radii:
            columns[name] = answers.radii[key]
    return columns


def _names(cell: CellView) -> dict[str, str]:
    """A name for each finished evaluation of the plan, by its key."""
    names: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for key, info in cell.evaluations.items():
        kind = str(info.get("kind", key.partition(":")[0]))
        which = (info.get("settings") or {}).get("name") if kind not in ("clean", "triggered") else None
        name = f"{kind}/{which}" if which else kind
        seen[name] += 1
        names[key] = name if seen[name] == 1 else f"{name} {seen[name]}"
    return names
