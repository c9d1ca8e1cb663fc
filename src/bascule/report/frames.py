"""A run as pandas frames: rows, models, and every answer of every model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bascule.core.optional import import_optional
from bascule.measure import MISSING
from bascule.measure.interval import summarise
from bascule.record.rows import outcomes_of
from bascule.record.run import RunRecord, open_run
from bascule.report.view import CellView, RowView, View, view_of

if TYPE_CHECKING:
    import pandas


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


def load(run: str | Path, *, runs: str | Path = "runs") -> Frames:
    """The frames of RUN.

    Args:
        run: A run folder, or the name of a study that was run.
        runs: Folder that holds the runs.

    Raises:
        RequestError: There is no such run, its record is damaged, or pandas is missing.
    """
    pd = import_optional("pandas", extra="frames")
    record = open_run(str(run), Path(runs))
    view = view_of([record])
    targets = [entry["target"] for entry in view.runs[0].plan["rows"]]
    cells, outcomes = [], []
    for row, target in zip(view.rows, targets, strict=True):
        for cell, entry in _models(row):
            cells.append(_cell(record, view, row, cell, entry, target))
            outcomes.append(pd.DataFrame(_key(row, cell) | _outcomes(cell)))
    columns = [*_key(view.rows[0], view.rows[0].cells[0]), "id", "label"]
    numbers = {f"{name}{part}": "float64" for name in view.metrics for part in ("", "_low", "_high")}
    counts = {f"{name}_n": "Int64" for name in view.metrics}
    facts = {"seconds": "float64", "poisoned": "Int64", "parameters": "Int64"} | dict.fromkeys(view.metrics, "float64")
    return Frames(
        rows=pd.DataFrame([_row(row) for row in view.rows]).astype(numbers | counts),
        cells=pd.DataFrame(cells).astype(facts),
        outcomes=pd.concat(outcomes, ignore_index=True) if outcomes else pd.DataFrame(columns=columns),
    )


def _models(row: RowView) -> Iterator[tuple[CellView, dict[str, Any]]]:
    """The models of a row with their entry in the plan, each before its twin."""
    twins = {twin.seed: twin for twin in row.twins}
    for cell, entry in zip(row.cells, row.result.entries, strict=True):
        yield cell, entry
        if cell.seed in twins:
            yield twins[cell.seed], entry


def _row(row: RowView) -> dict[str, Any]:
    found: dict[str, Any] = {"study": row.result.study, "row": row.result.row, "data": row.result.data}
    found |= row.result.vary | {"seeds": row.result.seeds}
    for name, measure in row.result.metrics.items():
        found |= {name: measure.value, f"{name}_low": measure.low, f"{name}_high": measure.high, f"{name}_n": measure.n}
    return found | {"flags": "; ".join(row.result.flags)}


def _key(row: RowView, cell: CellView) -> dict[str, Any]:
    return {"row": row.result.row, **row.result.vary, "seed": cell.seed, "twin": cell.twin, "cell": cell.fingerprint}


def _cell(
    run: RunRecord, view: View, row: RowView, cell: CellView, entry: Mapping[str, Any], target: int | None
) -> dict[str, Any]:
    info = cell.info
    known = None if cell.twin else outcomes_of(run, dict(entry), target)
    metrics = {
        name: None if known is None else summarise(metric, [known]).value for name, metric in view.metrics.items()
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


def _outcomes(cell: CellView) -> dict[str, Any]:
    """Columns of one model: labels as nullable integers, radii as floats."""
    pd = import_optional("pandas", extra="frames")
    table = cell.record.outcomes()
    names = _names(cell)
    clean = next((table.columns[key] for key, name in names.items() if name == "clean" and key in table.columns), None)
    used = np.arange(len(table.id)) if clean is None else np.flatnonzero(clean != MISSING)
    found: dict[str, Any] = {"id": table.id[used], "label": table.label[used]}
    for key, name in names.items():
        if key in table.columns:
            values = table.columns[key][used]
            found[name] = pd.array(np.where(values == MISSING, 0, values), dtype="Int64")
            found[name][values == MISSING] = pd.NA
        elif key in table.radii:
            found[name] = table.radii[key][used]
    return found


def _names(cell: CellView) -> dict[str, str]:
    """A name for each finished evaluation of the plan, by its key."""
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for key, info in cell.evaluations.items():
        kind = str(info.get("kind", key.partition(":")[0]))
        which = (info.get("settings") or {}).get("name") if kind not in ("clean", "triggered") else None
        name = f"{kind}/{which}" if which else kind
        seen[name] += 1
        found[key] = name if seen[name] == 1 else f"{name} {seen[name]}"
    return found
