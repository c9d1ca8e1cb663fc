"""The joint table in the formats people paste: text, JSON, CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bascule.core.catalog import load
from bascule.measure import Measure
from bascule.study.rows import RowResult

Format = Literal["text", "json", "csv", "markdown", "latex"]
_ARROWS = {"higher": "↑", "lower": "↓"}
UNKNOWN = "—"


def render(rows: Sequence[RowResult], form: Format) -> str:
    """All rows in one of the formats, ending with a line break."""
    return _RENDER[form](rows)


def metric_title(name: str) -> str:
    """Heading of the metric `name` (as in the record)."""
    return str(load("measure", name.replace("_", "-")).title)


def shown_value(measure: Measure) -> str:
    """The value for people: fractions in percent with one decimal, other units as they are."""
    if measure.value is None:
        return UNKNOWN
    return f"{100 * measure.value:.1f}" if measure.unit == "fraction" else f"{measure.value:.3g}"


def shown_interval(measure: Measure) -> str:
    """The interval in the same unit as `shown_value`, or nothing."""
    if measure.low is None or measure.high is None:
        return ""
    if measure.unit == "fraction":
        return f"{100 * measure.low:.1f}–{100 * measure.high:.1f}"  # noqa: RUF001
    return f"{measure.low:.3g}–{measure.high:.3g}"  # noqa: RUF001


def _headings(rows: Sequence[RowResult]) -> tuple[list[str], list[str]]:
    """Paths that vary, and metric names, over all rows in order."""
    vary = list(dict.fromkeys(path for row in rows for path in row.vary))
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return vary, metrics


def _metric_headings(rows: Sequence[RowResult], metrics: Sequence[str]) -> list[str]:
    headings = []
    for name in metrics:
        measure = rows[0].metrics[name]
        unit = "%" if measure.unit == "fraction" else measure.unit
        headings.append(f"{metric_title(name)} {unit} {_ARROWS[measure.better]}")
    return headings


def _json(rows: Sequence[RowResult]) -> str:
    return json.dumps([row.as_dict() for row in rows], indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(rows: Sequence[RowResult]) -> str:
    vary, metrics = _headings(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = [f"{name}{part}" for name in metrics for part in ("", "_low", "_high", "_n")]
    writer.writerow(["study", "row", "data", *vary, "seeds", *parts, "flags"])
    for row in rows:
        values = [getattr(row.metrics[name], part) for name in metrics for part in ("value", "low", "high", "n")]
        settings = [row.vary.get(path) for path in vary]
        writer.writerow([row.study, row.row, row.data, *settings, row.seeds, *values, "; ".join(row.flags)])
    return out.getvalue()


def _cells(row: RowResult, vary: Sequence[str], metrics: Sequence[str], joint: Callable[[str, str], str]) -> list[str]:
    numbers = [joint(shown_value(row.metrics[name]), shown_interval(row.metrics[name])) for name in metrics]
    return [row.row, *(str(row.vary.get(path, "")) for path in vary), str(row.seeds), *numbers]


def _published(row: RowResult, vary: Sequence[str], metrics: Sequence[str]) -> list[str] | None:
    """The row of published values that belongs under a measured one."""
    if row.published is None:
        return None
    known = row.published["metrics"]
    values = [f"{100 * known[name]:.1f}" if name in known else "" for name in metrics]
    return ["  published", *("" for _ in vary), "", *values]


def _notes(rows: Sequence[RowResult]) -> list[str]:
    """Flags of every row, and where a publication's printed value is known to be wrong."""
    notes = [f"{row.label}: {flag}" for row in rows for flag in row.flags]
    for row in rows:
        for name, value in (row.published or {}).get("printed", {}).items():
            why = (row.published or {}).get("note", "")
            notes.append(f"{row.label}: {metric_title(name)} is printed as {100 * value:.1f} %. {why}".rstrip())
    return notes


def _text(rows: Sequence[RowResult]) -> str:
    vary, metrics = _headings(rows)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("Row", *vary, "Seeds"):
        table.add_column(heading, justify="right" if heading == "Seeds" else "left", vertical="top")
    for heading in _metric_headings(rows, metrics):
        table.add_column(heading, justify="right", min_width=9)
    for row in rows:
        table.add_row(*_cells(row, vary, metrics, lambda value, interval: f"{value}\n{interval}"))
        published = _published(row, vary, metrics)
        if published is not None:
            table.add_row(*published)
    console = Console(file=io.StringIO(), width=max(100, 30 + 16 * len(metrics) + 14 * len(vary)), markup=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    notes = [f"! {note}" for note in _notes(rows)]
    legend = "95 % intervals: over seeds (Student's t) with several seeds, over test images (Wilson) with one."
    return "\n".join([*lines, legend, *notes]).strip("\n") + "\n"


def _markdown(rows: Sequence[RowResult]) -> str:
    def joint(value: str, interval: str) -> str:
        return f"{value} ({interval})" if interval else value

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"

    vary, metrics = _headings(rows)
    lines = [line(["Row", *vary, "Seeds", *_metric_headings(rows, metrics)])]
    lines.append("| --- |" + " --- |" * len(vary) + " ---: |" * (1 + len(metrics)))
    for row in rows:
        lines += [line(cells) for cells in (_cells(row, vary, metrics, joint), _published(row, vary, metrics)) if cells]
    notes = [f"- {note}" for note in _notes(rows)]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "—": "---", "↑": r"$\uparrow$",  # noqa: RUF001
    "↓": r"$\downarrow$", "·": r"$\cdot$",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex(rows: Sequence[RowResult]) -> str:
    def joint(value: str, interval: str) -> str:
        return f"{value} [{interval}]" if interval else value

    vary, metrics = _headings(rows)
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{tabular}{l" + "l" * len(vary) + "r" * (1 + len(metrics)) + "}",
        r"\toprule",
        " & ".join(map(_escaped, ["Row", *vary, "Seeds", *_metric_headings(rows, metrics)])) + r" \\",
        r"\midrule",
        *(
            " & ".join(map(_escaped, cells)) + r" \\"
            for row in rows
            for cells in (_cells(row, vary, metrics, joint), _published(row, vary, metrics))
            if cells
        ),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {note}" for note in _notes(rows)),
    ]
    return "\n".join(lines) + "\n"


_RENDER: dict[Format, Callable[[Sequence[RowResult]], str]] = {
    "text": _text,
    "json": _json,
    "csv": _csv,
    "markdown": _markdown,
    "latex": _latex,
}
