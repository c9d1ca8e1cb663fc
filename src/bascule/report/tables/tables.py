"""The joint table in the formats people paste: text, JSON, CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bascule.core import grid
from bascule.core.errors import RequestError
from bascule.core.grid import Grid, TableCell
from bascule.core.text import csv_field, json_text
from bascule.metrics.contract import Measure
from bascule.metrics.paired import Difference
from bascule.metrics.wording import ARROWS, UNKNOWN, table_cell
from bascule.record.rows import RowResult, by_class
from bascule.report.compare import pairwise
from bascule.report.compare.asked import asked_of
from bascule.report.compare.comparable import apart
from bascule.report.compare.pairwise import Comparison
from bascule.report.compare.sentences import describe
from bascule.report.words import SPACE, flag_lines, joined

Format = Literal["text", "json", "csv", "markdown", "latex"]
LEGEND = "95 % intervals: over test images (Wilson) and, with several seeds, over seeds (Student's t)."
ONE_IN_TWENTY = "Each interval stands for itself: among many, about one in twenty misses."
PAIRED = "95 % intervals of differences paired by seed and by image; one that holds 0 separates nothing."
ONE_SEED_TRAINED = (
    "At one seed no difference to what was trained or repaired is clear: the intervals leave out the doubt from doing "
    "it anew."
)
ONE_SEED = "At one seed no difference is clear: the intervals leave out the doubt from training anew."


@dataclass(frozen=True, kw_only=True)
class More:
    """What is shown beside the rows."""

    against: str | None = None
    """Name of the row that every other one is compared with."""
    before: bool = False
    """Every repaired row, or filtered one, is compared with the row of the same models before."""
    pareto: bool = False
    """Which rows another one beats at both ends."""
    by_class: bool = False
    """The metrics by true class."""

    @property
    def compares(self) -> bool:
        """Whether rows are compared one by one."""
        return self.before or self.against is not None

    def comparisons(self, rows: Sequence[RowResult]) -> list[Comparison]:
        """Those asked for.

        Raises:
            RequestError: No row has the name in `against`, nothing was repaired, or both are asked for.
        """
        if not self.before:
            return [] if self.against is None else pairwise.against(rows, self.against)
        if self.against is not None:
            raise RequestError("a row is compared with one other: ask for `against` or for `before`, not for both")
        comparisons = pairwise.before(rows)
        if not comparisons:
            raise RequestError("no row is repaired or filtered while another one shows the same models before")
        return comparisons


def render(rows: Sequence[RowResult], form: Format, more: More | None = None, *, width: int | None = None) -> str:
    """All rows in one of the formats, ending with a line break. Text is at most `width` columns wide, where given.

    Raises:
        RequestError: A comparison that `more` asks for cannot be made, or a format cannot show what is asked for.
    """
    more = more or More()
    comparisons = more.comparisons(rows)
    if form == "json":
        return _json(rows, more, comparisons)
    if form == "csv":
        return _csv(rows, more, comparisons)
    table, notes = joint_table(rows, form)
    grids, below = [_by_class(rows) if more.by_class else table], [notes]
    if more.by_class:
        below[0].insert(1, ONE_IN_TWENTY)
    if more.pareto:
        below[0] += [note for free, beaten in pairwise.pareto(rows) for note in (free, *beaten)]
    if more.compares:
        grids.append(_differences(comparisons, "the same models before" if more.before else ""))
        alone = [comparison.too_few_seeds for comparison in comparisons]
        doubt = (ONE_SEED if all(alone) else ONE_SEED_TRAINED,) if any(alone) else ()
        below.append([PAIRED, *doubt, *(_sentence(comparison) for comparison in comparisons)])
    return grid.render(grids, below, form, width=width)


def joint_table(rows: Sequence[RowResult], form: Format = "text") -> tuple[Grid, list[str]]:
    """All rows, and the lines below them."""
    return _joint(rows), [LEGEND, *_notes(rows, form)]


# --- grids -----------------------------------------------------------------------------------------------------------


def _headings(rows: Sequence[RowResult]) -> tuple[list[str], list[str]]:
    """Paths that vary, and metric names, over all rows in order."""
    vary = list(dict.fromkeys(path for row in rows for path in row.vary))
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return vary, metrics


def _metric_headings(rows: Sequence[RowResult], metrics: Sequence[str], fraction: str = "%") -> list[str]:
    headings = []
    for name in metrics:
        metric = next(row.kinds[name] for row in rows if name in row.kinds)
        unit = fraction if metric.unit == "fraction" else metric.unit
        headings.append(f"{metric.title} {unit} {ARROWS[metric.better]}")
    return headings


def _names(rows: Sequence[RowResult], vary: Sequence[str], first: str = "Row") -> list[str]:
    """Headings of what `_about` says."""
    return [first, *(["Run"] if any(row.run for row in rows) else []), *vary]


def _about(row: RowResult, vary: Sequence[str]) -> list[TableCell]:
    run = [row.run] if row.run else []
    return [TableCell(text) for text in (row.row, *run, *(str(row.vary.get(path, "")) for path in vary))]


def _cells(measures: dict[str, Measure], metrics: Sequence[str]) -> list[TableCell]:
    """Nothing for a metric that the row's run does not ask for."""
    known = (measures.get(name) for name in metrics)
    return [TableCell("") if measure is None else table_cell(measure) for measure in known]


def _joint(rows: Sequence[RowResult]) -> Grid:
    vary, metrics = _headings(rows)
    lines = []
    for row in rows:
        about = _about(row, vary)
        lines.append([*about, TableCell(str(row.seeds)), *_cells(row.metrics, metrics)])
        if row.published is not None:
            known = row.published.metrics
            values = [f"{100 * known[name]:.1f}" if name in known else "" for name in metrics]
            lines.append([TableCell(text) for text in ("  published", *("" for _ in about[1:]), "", *values)])
    return Grid(_names(rows, vary), ["Seeds", *_metric_headings(rows, metrics)], lines)


def _by_class(rows: Sequence[RowResult]) -> Grid:
    vary, metrics = _headings(rows)
    lines = []
    for row in rows:
        for label, (n, measures) in by_class(row).items():
            cells = zip(metrics, _cells(measures, metrics), strict=True)
            numbers = [_with_count(cell, measures[name].n, n) if name in measures else cell for name, cell in cells]
            about = [*_about(row, vary), TableCell(row.class_name(label))]
            lines.append([*about, TableCell(str(row.seeds)), TableCell(f"{n:,}"), *numbers])
    return Grid([*_names(rows, vary), "True class"], ["Seeds", "Images", *_metric_headings(rows, metrics)], lines)


def _with_count(cell: TableCell, counted: int | None, images: int) -> TableCell:
    """The cell with the number of images that count, where it is not that of the line."""
    return cell if counted in (None, images) else cell._replace(interval=f"{cell.interval}, n {counted:,}")


def _differences(comparisons: Sequence[Comparison], reference: str = "") -> Grid:
    rows = [comparison.row for comparison in comparisons]
    vary, metrics = _headings(rows)
    metrics = [name for name in metrics if any(_known(comparison, name) for comparison in comparisons)] or metrics
    lines = []
    for comparison in comparisons:
        differences = [comparison.differences.get(name) for name in metrics]
        about = _about(comparison.row, vary)
        lines.append([*about, TableCell(str(comparison.seeds)), *map(change_cell, differences)])
    references = dict.fromkeys(map(_reference, comparisons))
    heading = f"Row less {reference or ' or '.join(references)}"
    return Grid(_names(rows, vary, heading), ["Seeds", *_metric_headings(rows, metrics, "points")], lines)


def _reference(comparison: Comparison) -> str:
    """What the row is compared with; with what varies where that is another value of it."""
    reference = comparison.reference
    return reference.name if reference.vary == comparison.row.vary else reference.label


def _known(comparison: Comparison, metric: str) -> bool:
    difference = comparison.differences.get(metric)
    return difference is not None and difference.value is not None


def change_cell(difference: Difference | None) -> TableCell:
    """The change, with its sign, and its interval, where there is one: `+1.2` and `-0.4 to +2.8`."""
    if difference is None or difference.value is None:
        return TableCell(UNKNOWN)
    value = _signed(difference.value, difference.unit)
    if difference.low is None or difference.high is None:
        return TableCell(value)
    low, high = (_signed(end, difference.unit) for end in (difference.low, difference.high))
    return TableCell(value, f"{low} to {high}")


def _signed(number: float, unit: str) -> str:
    """With its sign, and 0 only for nothing at all."""
    if unit != "fraction":
        return f"{number:+.3g}"
    number = round(number, 12)  # what is left of adding and taking away the same
    text = f"{100 * number:+.1f}"
    return f"{100 * number:+.2g}" if float(text) == 0 else text


def _notes(rows: Sequence[RowResult], form: Format) -> list[str]:
    """What was asked, what cannot be told apart, flags, and where a publication printed a value that is wrong."""
    notes = flag_lines([(row.label, row.flags) for row in rows], every=len(rows))
    for row, published in ((row, row.published) for row in rows if row.published is not None):
        for name, value in published.printed.items():
            if name not in row.kinds:
                continue  # a metric that is left out
            title, why = row.kinds[name].title, published.note
            notes.append(f"{row.label}: {title} is printed as {100 * value:.1f} %. {why}".rstrip())
    notes = [f"! {note}" if form == "text" else note for note in notes]
    return [*asked_of(rows), *_searched(rows), *pairwise.unseparated(rows), *apart(rows), *notes]


def _searched(rows: Sequence[RowResult]) -> list[str]:
    """Which rows' attacks searched in two precisions, if any did."""
    mixed = [row.label for row in rows if row.attack_precision == "mixed"]
    if not mixed:
        return []
    whose = "all rows" if len(mixed) == len(rows) else joined(mixed)
    return [f"Attacks on {whose}: gradients in bfloat16 where the attack can, success in float32 (mixed precision)."]


def _sentence(comparison: Comparison) -> str:
    return f"{comparison.row.label} {describe(comparison).text}".replace(SPACE, " ")


# --- data ------------------------------------------------------------------------------------------------------------


def _json(rows: Sequence[RowResult], more: More, comparisons: Sequence[Comparison]) -> str:
    entries: list[dict[str, Any]] = [row.as_dict() for row in rows]
    places = {id(row): place for place, row in enumerate(rows)}
    for comparison in comparisons:
        entries[places[id(comparison.row)]]["differences"] = {
            "to": _reference(comparison),
            "metrics": {name: difference.as_dict() for name, difference in comparison.differences.items()},
            "sentence": _sentence(comparison),
        }
    if more.pareto:
        for place, rivals in pairwise.rivals_by_row(rows).items():
            entries[place]["beaten_by"] = {
                "clearly": [rows[rival].name for rival in rivals.clearly],
                "perhaps": [rows[rival].name for rival in rivals.perhaps],
            }
    if more.by_class:
        for row, entry in zip(rows, entries, strict=True):
            entry["by_class"] = [
                {"label": label, "class": row.class_name(label), "n": n,
                 "metrics": {name: measure.as_dict() for name, measure in measures.items()}}
                for label, (n, measures) in by_class(row).items()
            ]  # fmt: skip
    return json_text(json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


_PARTS = ("", "_low", "_high", "_n")


def _csv(rows: Sequence[RowResult], more: More, comparisons: Sequence[Comparison]) -> str:
    if more.by_class and (more.compares or more.pareto):
        raise RequestError("CSV is one table: ask for the classes or for comparisons between rows, not for both")
    vary, metrics = _headings(rows)
    differences = {id(comparison.row): comparison.differences for comparison in comparisons}
    by_row = pairwise.rivals_by_row(rows) if more.pareto else {}
    several = any(row.run for row in rows)
    heading = [
        *(["run"] if several else []),
        "study",
        "row",
        "data",
        *vary,
        *(["label", "class", "images"] if more.by_class else []),
        "seeds",
    ]
    heading += [f"{name}{part}" for name in metrics for part in _PARTS]
    heading += [f"{name}_difference{part}" for name in metrics for part in _PARTS] if more.compares else []
    heading += ["clearly_beaten_by"] if more.pareto else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")

    def write(line: Sequence[object]) -> None:
        writer.writerow(map(csv_field, line))

    write([*heading, "flags"])
    for place, row in enumerate(rows):
        about = [*([row.run] if several else []), row.study, row.row, row.data, *(row.vary.get(path) for path in vary)]
        flags = "; ".join(row.flags)
        if more.by_class:
            for label, (n, measures) in by_class(row).items():
                name = row.class_name(label)
                write([*about, label, name, n, row.seeds, *_numbers(measures, metrics), flags])
            continue
        line = [*about, row.seeds, *_numbers(row.metrics, metrics)]
        line += _numbers(differences.get(id(row), {}), metrics) if more.compares else []
        line += [
            "; ".join(rows[rival].name for rival in by_row[place].clearly) if place in by_row else ""
        ] * more.pareto
        write([*line, flags])
    return out.getvalue()


def _numbers(values: dict[str, Measure] | dict[str, Difference], metrics: Sequence[str]) -> list[Any]:
    """Value, low, high and n of each metric; nothing where there is none."""
    return [getattr(values.get(name), part, None) for name in metrics for part in ("value", "low", "high", "n")]
