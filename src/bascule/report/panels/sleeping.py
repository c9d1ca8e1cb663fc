"""Whether backdoors sleep: ASR before and after a little further training, beside the twin's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from bascule.core.catalog import build
from bascule.core.grid import TableCell
from bascule.metrics.contract import Measure
from bascule.metrics.interval import summarise
from bascule.metrics.woken import Woken, woken
from bascule.metrics.wording import table_cell
from bascule.report.compare.same_models import merge
from bascule.report.drawing import labels, svg
from bascule.report.tables.tables import ONE_SEED, change_cell
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, count, percent

TITLE = "Sleeping backdoors"
PLACE = 95

_METRICS = ("asr", "asr-retuned-clean", "asr-retuned", "asr-twin", "asr-retuned-twin", "accuracy", "accuracy-retuned")
HEADINGS = ("ASR", "After clean images", "After poisoned", "Twin after poisoned", "Above the twin", "Accuracy", "After")
_AXIS, _ROW, _BOTTOM = 330, 34, 46
"""Pixels: the axis, a row, what is below."""
_LONGEST = 300
"""Of a name beside the axis."""
_CHARTS = 24
"""Most charts; the tables are always there."""
_DRAWN = 30
"""Rows of a chart that are drawn; the others are in the table."""
_SPOKEN = 12
"""Rows that the text alternative of a picture names."""

_BEFORE, _AFTER, _TWIN = "before", "after", "twin"


@dataclass(frozen=True)
class Line:
    """A row of the study, retuned."""

    row: RowView
    name: str
    """Without what varies, which its chart says."""
    measures: Mapping[str, Measure]
    """`_METRICS`, by name; some unknown."""
    poisoned: Woken | None
    """What poisoned images did, beside the twin; None without one."""
    clean: Woken | None
    """What clean images did."""

    @property
    def numbers(self) -> tuple[TableCell, ...]:
        """As `HEADINGS`."""
        cell = {name: table_cell(measure) for name, measure in self.measures.items()}
        gap = change_cell(None if self.poisoned is None else self.poisoned.gap)
        after = (cell["asr-retuned-clean"], cell["asr-retuned"], cell["asr-retuned-twin"])
        return (cell["asr"], *after, gap, cell["accuracy"], cell["accuracy-retuned"])


@dataclass(frozen=True)
class Chart:
    """Rows that were retuned alike."""

    where: str
    """What they have in common, where there are several charts or something varies."""
    how: str
    """What was trained on."""
    sentences: tuple[str, ...]
    picture: svg.Drawing | None
    lines: tuple[Line, ...]
    rest: int
    """Rows that are not drawn."""


def context(view: View) -> Mapping[str, Any] | None:
    """A chart for each group of rows that were retuned alike; nothing where none was."""
    asked = merge(view.rows, lambda row: row.cells[0].keys("retuned-triggered") or None)
    if not asked:
        return None
    groups: dict[str, list[Line]] = {}
    for line in map(_line, asked):
        row = line.row
        alike = (row.result.data, row.result.vary, row.result.settings.get("retune"))
        if any(line.measures[name].value is not None for name in ("asr-retuned", "asr-retuned-clean")):
            groups.setdefault(json.dumps(alike, sort_keys=True, default=str), []).append(line)
    known = {id(line.row) for group in groups.values() for line in group}
    return {
        "headings": HEADINGS,
        "charts": [_chart(place, group, alone=len(groups) == 1) for place, group in enumerate(groups.values())],
        "missing": [row for row in asked if id(row) not in known],
    }


def _line(row: RowView) -> Line:
    outcomes = row.result.outcomes
    measures = {name: summarise(build("measure", name), list(outcomes.values())) for name in _METRICS}
    return Line(row, row.result.name, measures, woken(outcomes, poisoned=True), woken(outcomes, poisoned=False))


def _chart(place: int, lines: Sequence[Line], *, alone: bool) -> Chart:
    drawn = [line for line in lines if line.measures["asr"].value is not None][:_DRAWN]
    picture = _picture(place, drawn) if drawn and place < _CHARTS else None
    return Chart(
        where="" if alone and not lines[0].row.vary else lines[0].row.where,
        how=_how(lines[0].row.result.settings.get("retune") or {}),
        sentences=tuple(_sentences(lines)),
        picture=picture,
        lines=tuple(lines),
        rest=len(lines) - len(drawn) if picture is not None else 0,
    )


# --- in words --------------------------------------------------------------------------------------------------------


def _how(retune: Mapping[str, Any]) -> str:
    """`5 passes over 500 images, 5 of them poisoned, at a learning rate of 0.01`."""
    if not {"images", "poisoned", "epochs", "lr"} <= retune.keys():
        return ""
    passes, images = count(retune["epochs"], "pass", "passes"), count(retune["images"], "image")
    poisoned = retune["poisoned"] or "none"
    return f"{passes} over {images}, {poisoned} of them poisoned, at a learning rate of {retune['lr']:g}"


def _sentences(lines: Sequence[Line]) -> list[str]:
    """Whose backdoor wakes, and what the same images teach those that never had it."""
    sentences = []
    for what, kind in (("A few poisoned images", "poisoned"), ("Clean images alone", "clean")):
        known = {line.name: one for line in lines if (one := getattr(line, kind)) is not None}
        clear, perhaps = (
            "; ".join(name for name, one in known.items() if getattr(one, how)) for how in ("clear", "perhaps")
        )
        if known:
            unsure = f", perhaps in {perhaps}" if perhaps else ""
            sentences.append(f"{what} clearly wake a backdoor in {clear or 'none of these rows'}{unsure}.")
    twins = [line.measures["asr-retuned-twin"].value for line in lines]
    taught = [value for value in twins if value is not None]
    if taught:
        sentences.append(f"The same poisoned images teach the twins an ASR of at most {percent(max(taught))}.")
    else:
        sentences.append("Without a twin nobody knows what was woken and what was learnt anew.")
    if any(line.poisoned is not None and line.poisoned.rise.too_few_seeds for line in lines):
        sentences.append(ONE_SEED)
    return sentences


# --- the picture -----------------------------------------------------------------------------------------------------


def _picture(place: int, lines: Sequence[Line]) -> svg.Drawing:
    """A line a row: from ASR before to ASR after, and the twin's after below it."""
    with svg.drawing():
        names = [labels.shortened(line.name, size=svg.TEXT_SIZE, width=_LONGEST) for line in lines]
        left = round(max(labels.width_of(name, svg.TEXT_SIZE) for name in names)) + 12
        height = _ROW * len(lines) + _BOTTOM + 8
        axes = svg.axes_of(left + _AXIS + 14, height, left=left, right=14, top=8, bottom=_BOTTOM)
        axes.set(xlim=(-2, 102), ylim=(len(lines) - 0.5, -0.5), xticks=range(0, 101, 20))
        axes.set_yticks(range(len(lines)), labels=[f"name-{number}" for number in range(len(lines))])
        axes.set_xlabel("ASR, %  ←  better", labelpad=8)
        titles: dict[str, str] = {}
        for number, line in enumerate(lines):
            titles |= _draw(axes, number, line)
        texts = {f"name-{number}": name for number, name in enumerate(names)}
        return svg.svg(axes, name=f"sleeping-{place}", label=_spoken(lines), texts=texts, titles=titles)


def _draw(axes: Axes, number: int, line: Line) -> dict[str, str]:
    """The marks of a row, with what each says by its id."""
    colour, shape = line.row.mark.colour, line.row.mark.shape
    before, after, twin = (line.measures[name] for name in ("asr", "asr-retuned", "asr-retuned-twin"))
    if before.value is not None and after.value is not None:
        axes.plot([100 * before.value, 100 * after.value], [number] * 2, color=colour, linewidth=1.75, zorder=2)
    titles: dict[str, str] = {}
    for name, measure, filled in ((_BEFORE, before, "none"), (_AFTER, after, colour)):
        if measure.value is not None:
            titles |= _mark(axes, number, 0.0, line, name, measure, marker=shape, markerfacecolor=filled)
    if twin.value is not None:
        titles |= _mark(axes, number, 0.28, line, _TWIN, twin, marker="|", markeredgecolor=svg.INK)
    return titles


def _mark(
    axes: Axes, number: int, below: float, line: Line, name: str, measure: Measure, **style: Any
) -> dict[str, str]:
    """One number with its interval."""
    assert measure.value is not None
    ends = [100 * (measure.value if end is None else end) for end in (measure.low, measure.high)]
    colour = svg.INK if name == _TWIN else line.row.mark.colour
    axes.plot(ends, [number + below] * 2, color=colour, linewidth=5, alpha=0.22, solid_capstyle="butt", zorder=1.5)
    gid = f"{name}-{number}"
    look: dict[str, Any] = {"markeredgecolor": colour, **style}
    axes.plot(
        [100 * measure.value], [number + below], linestyle="none", markersize=9, markeredgewidth=1.5, clip_on=False,
        zorder=3, gid=gid, **look,
    )  # fmt: skip
    what = {_BEFORE: "ASR before", _AFTER: "ASR after", _TWIN: "ASR of the twin after"}[name]
    cell = table_cell(measure)
    return {gid: f"{line.name}: {what} {cell.value}{SPACE}% ({cell.interval})"}


def _spoken(lines: Sequence[Line]) -> str:
    each = []
    for line in lines[:_SPOKEN]:
        names = {"asr": "before", "asr-retuned": "after", "asr-retuned-twin": "twin after"}
        known = [(name, line.measures[key].value) for key, name in names.items()]
        each.append(f"{line.name}: " + ", ".join(f"{n} {percent(v)}" for n, v in known if v is not None))
    rest = [f"and {count(len(lines) - _SPOKEN, 'more row')}, all in the table"] if len(lines) > _SPOKEN else []
    return f"ASR before and after further training. {'; '.join([*each, *rest])}.".replace(SPACE, " ")
