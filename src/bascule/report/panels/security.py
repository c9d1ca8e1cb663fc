"""Security curves: robust accuracy by the radius of the ball, one line per row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bascule.core.catalog import build
from bascule.core.grid import TableCell
from bascule.metrics.contract import Measure
from bascule.metrics.interval import summarise
from bascule.metrics.wording import UNKNOWN, table_cell
from bascule.record.plan import Reach
from bascule.report.compare.same_models import merge
from bascule.report.drawing import svg
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, count, percent

TITLE = "Security curves"
PLACE = 50

_WIDTH, _HEIGHT = 400, 320
_SPOKEN = 12
"""Rows that the text alternative of a picture names; the table has them all."""
_CHARTS = 24
"""Most charts; the tables are always there."""
_TOUCHED = 60
"""With more marks than this none takes the focus: the table has the numbers."""
_NORMS = {"linf": "largest change of a pixel value", "l2": "Euclidean length of the change", "l1": "sum of all changes"}

Point = tuple[float, Measure]
"""A radius, and the robust accuracy in it."""


@dataclass(frozen=True)
class Line:
    """The curve of a row."""

    row: RowView
    points: tuple[Point, ...]
    own: frozenset[float]
    """Radii of the study's own attacks."""
    certified: Point | None
    """The radius asked of the certifiers and what they prove."""


@dataclass(frozen=True)
class Chart:
    """Rows that can share axes, with their numbers."""

    where: str
    """What they have in common, where there are several charts."""
    picture: svg.Drawing | None
    rows: list[RowView]
    radii: list[str]
    lines: list[tuple[RowView, list[TableCell]]]


def context(view: View) -> Mapping[str, Any] | None:
    """A chart for each group of rows; nothing where no curve is asked for."""
    asked = [row for row in view.rows if _asked(row)]
    if not asked:
        return None
    lines = [line for row in merge(asked, _asked) if (line := _line(row)) is not None]
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        vary = json.dumps(line.row.result.vary, sort_keys=True)
        groups.setdefault((line.row.result.data, _norm(line.row), vary), []).append(line)
    return {
        "charts": [
            _chart(place, norm, group, alone=len(groups) == 1)
            for place, ((_, norm, _), group) in enumerate(groups.items())
        ],
        "certified": any(line.certified for line in lines),
        "missing": [row for row in asked if _line(row) is None],
        "unasked": [row for row in view.rows if not _asked(row)],
    }


# --- what is shown ---------------------------------------------------------------------------------------------------


def _asked(row: RowView) -> tuple[str, ...] | None:
    """Keys of the points that the row's first model is asked for; None where there are none."""
    return row.cells[0].keys("curve") or None


def _line(row: RowView) -> Line | None:
    points = tuple((eps, measure) for eps, measure in row.result.curve if measure.value is not None)
    if not points:
        return None
    own = frozenset(reach.eps for reach in _reaches(row, "attack") if reach.eps is not None)
    return Line(row, points, own, _certified(row))


def _reaches(row: RowView, kind: str) -> list[Reach]:
    """The balls that the row's questions of a kind speak of."""
    return [question.reach for question in row.cells[0].planned.of(kind) if question.reach is not None]


def _norm(row: RowView) -> str:
    return next((reach.norm for reach in _reaches(row, "attack") if reach.norm is not None), "")


def _certified(row: RowView) -> Point | None:
    """What is proved in the norm of the curve, where all certifiers were asked for one radius."""
    asked = {(reach.norm, reach.eps) for reach in _reaches(row, "certify") if reach.eps is not None}
    if len(asked) != 1:
        return None
    ((norm, eps),) = asked
    measure = summarise(build("measure", "certified-accuracy"), list(row.result.outcomes.values()))
    return (eps, measure) if norm == _norm(row) and measure.value is not None else None


def _chart(place: int, norm: str, lines: Sequence[Line], *, alone: bool) -> Chart:
    radii = sorted({eps for line in lines for eps, _ in line.points})
    table = []
    for line in lines:
        cells = {eps: table_cell(measure) for eps, measure in line.points}
        table.append((line.row, [cells.get(eps, TableCell(UNKNOWN)) for eps in radii]))
    where = "" if alone else lines[0].row.where
    picture = _picture(place, norm, lines) if place < _CHARTS else None
    return Chart(where, picture, [line.row for line in lines], [f"{eps:.4g}" for eps in radii], table)


# --- the picture -----------------------------------------------------------------------------------------------------


def _picture(place: int, norm: str, lines: Sequence[Line]) -> svg.Drawing:
    with svg.drawing():
        last = max(eps for line in lines for eps, _ in [*line.points, *([line.certified] if line.certified else [])])
        axes = svg.shared_axes(("security", norm, last), lambda: _axes(norm, last))
        for eps in sorted({eps for line in lines for eps in line.own}):
            axes.axvline(eps, color=svg.INK, linewidth=1, linestyle=(0, (2, 3)), zorder=1.5)
        titles: dict[str, str] = {}
        for line in lines:
            _draw(axes, line)
            titles |= _marks(axes, line, first=len(titles))
        if len(titles) > _TOUCHED:
            titles = {}
        return svg.svg(axes, name=f"security-{place}", label=_spoken(lines), titles=titles)


def _axes(norm: str, last: float) -> Axes:
    axes = svg.axes_of(_WIDTH, _HEIGHT, left=52, right=14, top=8, bottom=50)
    axes.set(xlim=(-0.02 * last, 1.02 * last or 1), ylim=(-4, 104), yticks=range(0, 101, 20))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    about = f" ({norm}: {_NORMS[norm]})" if norm in _NORMS else ""
    axes.set_xlabel(f"eps{about}", labelpad=8)
    axes.set_ylabel("Robust accuracy, %  →  better", labelpad=8)
    return axes


def _draw(axes: Axes, line: Line) -> None:
    colour = line.row.mark.colour
    radii = [eps for eps, _ in line.points]
    values, lows, highs = (
        [100 * (getattr(measure, part) or 0.0) for _, measure in line.points] for part in ("value", "low", "high")
    )
    axes.fill_between(radii, lows, highs, color=colour, alpha=0.16, linewidth=0)
    axes.plot(radii, values, color=colour, linewidth=1.75)


def _marks(axes: Axes, line: Line, *, first: int) -> dict[str, str]:
    """Draw a mark for each number; what each says, by its id, which are counted from `first`."""
    style: dict[str, Any] = {"marker": line.row.mark.shape, "linestyle": "none", "clip_on": False, "zorder": 3}
    titles = {}
    marks = [(*point, False) for point in line.points] + ([(*line.certified, True)] if line.certified else [])
    for step, (eps, measure, proof) in enumerate(marks):
        assert measure.value is not None
        gid = f"point-{first + step}"
        axes.plot(
            [eps], [100 * measure.value], markersize=9 if proof or eps in line.own else 6, gid=gid,
            markerfacecolor="none" if proof else line.row.mark.colour, markeredgewidth=1.5 if proof else 0.75,
            markeredgecolor=line.row.mark.colour if proof else svg.INK, **style,
        )  # fmt: skip
        titles[gid] = _title(line.row, eps, measure, proof=proof)
    return titles


def _title(row: RowView, eps: float, measure: Measure, *, proof: bool) -> str:
    what = "certified accuracy" if proof else "accuracy" if eps == 0 else "robust accuracy"
    return f"{row.name}, eps {eps:.4g}: {what} {table_cell(measure).value}{SPACE}% ({table_cell(measure).interval})"


def _spoken(lines: Sequence[Line]) -> str:
    each = []
    for line in lines[:_SPOKEN]:
        parts = [f"{percent(measure.value)} at {eps:.4g}" for eps, measure in line.points if measure.value is not None]
        each.append(f"{line.row.name}: {', '.join(parts)}")
    rest = [f"and {count(len(lines) - _SPOKEN, 'more row')}, all in the table"] if len(lines) > _SPOKEN else []
    return f"Robust accuracy by eps. {'; '.join([*each, *rest])}.".replace(SPACE, " ")
