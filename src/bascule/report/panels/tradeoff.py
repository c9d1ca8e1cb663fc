"""The picture of the trade-off: robust accuracy across, resistance to the backdoor upwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from bascule.metrics.contract import Measure
from bascule.report.compare.comparable import apart
from bascule.report.compare.pairwise import pareto
from bascule.report.compare.same_models import distinct
from bascule.report.drawing import labels, svg
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, count, joined, percent, percent_interval

TITLE = "The trade-off"
PLACE = 20

_WIDTH, _HEIGHT = 400, 372
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 8, 50
_FROM, _TO = -4.0, 104.0
"""A little more than 0 to 100 %, so that marks on the border are whole."""
_LABEL_WIDTH = 160
_MANY = 4
"""With more rows than this the legend leaves the intervals to the table."""
_SPOKEN = 12
"""Rows that the text alternative of the picture names; the table has them all. With more, who beats whom is folded."""


def context(view: View) -> Mapping[str, Any] | None:
    """The picture, and its numbers in words for every row; None where all is done and no row has both ends, as in an
    audit of a model of whose trigger nobody knows."""
    rows = distinct(view.rows)
    drawn = [row for row in rows if not _gaps(row)]
    if not drawn and all(cell.done for row in rows for cell in row.cells):
        return None
    results = [row.result for row in rows]
    return {
        "picture": _picture(drawn) if drawn else None,
        "legend": [(row, _numbers(row)) for row in drawn],
        "compact": len(drawn) > _MANY,
        "missing": [(row, joined(gaps)) for row in rows if (gaps := _gaps(row))],
        "pareto": pareto(results) if len(results) > 2 else [],
        "folded": len(results) > _SPOKEN,
        "strangers": bool(apart(results)),
    }


def _gaps(row: RowView) -> list[str]:
    wanted = {"robust_accuracy": "robust accuracy", "asr": "ASR"}
    measures = row.result.metrics
    return [name for key, name in wanted.items() if key not in measures or measures[key].value is None]


def _numbers(row: RowView) -> list[tuple[str, str, str]]:
    names = {"robust_accuracy": "robust accuracy", "asr": "ASR", "accuracy": "accuracy"}
    measures = [(name, row.result.metrics[key]) for key, name in names.items() if key in row.result.metrics]
    return [(name, *percent_interval(m.value, *_interval(m, m.value))) for name, m in measures if m.value is not None]


def _interval(measure: Measure, value: float) -> tuple[float, float]:
    """Its ends; the value itself where there is none."""
    return (value if measure.low is None else measure.low), (value if measure.high is None else measure.high)


def _picture(rows: Sequence[RowView]) -> svg.Drawing:
    with svg.drawing():
        axes = svg.axes_of(_WIDTH, _HEIGHT, left=_LEFT, right=_RIGHT, top=_TOP, bottom=_BOTTOM)
        axes.set(xlim=(_FROM, _TO), ylim=(_FROM, _TO), xticks=range(0, 101, 20), yticks=range(0, 101, 20))
        axes.set_xlabel("Robust accuracy, %  →  better", labelpad=8)
        axes.set_ylabel("1 \N{MINUS SIGN} ASR, %  →  better", labelpad=8)
        points = [_point(row) for row in rows]
        for number, (row, point) in enumerate(zip(rows, points, strict=True)):
            _draw(axes, row, point, gid=f"mark-{number}")
        names = [labels.shortened(row.name, size=svg.TEXT_SIZE, width=_LABEL_WIDTH) for row in rows]
        inside = labels.Box(_LEFT, _BOTTOM, _WIDTH, _HEIGHT)
        placed = labels.place(names, [_pixels(point) for point in points], inside=inside, size=svg.TEXT_SIZE)
        texts = {}
        for number, label in enumerate(placed):
            if label is not None:
                texts[f"name-{number}"] = label.text
                axes.annotate(
                    f"name-{number}", (label.x, label.y), xycoords="figure points", ha=label.anchor, va="baseline"
                )
        titles = {f"mark-{number}": _title(row) for number, row in enumerate(rows)}
        return svg.svg(axes, name="tradeoff", label=_spoken(rows), texts=texts, titles=titles)


def _point(row: RowView) -> labels.Point:
    """In percent."""
    robust, asr = row.result.metrics["robust_accuracy"], row.result.metrics["asr"]
    assert robust.value is not None
    assert asr.value is not None
    (left, right), (low, high) = _interval(robust, robust.value), _interval(asr, asr.value)
    shares = (robust.value, 1 - asr.value, left, 1 - high, right, 1 - low)
    return labels.Point(*(100 * share for share in shares))


def _pixels(point: labels.Point) -> labels.Point:
    across = (_WIDTH - _LEFT - _RIGHT) / (_TO - _FROM)
    upwards = (_HEIGHT - _TOP - _BOTTOM) / (_TO - _FROM)
    x, left, right = (_LEFT + (value - _FROM) * across for value in (point.x, point.left, point.right))
    y, bottom, top = (_BOTTOM + (value - _FROM) * upwards for value in (point.y, point.bottom, point.top))
    return labels.Point(x, y, left, bottom, right, top)


def _draw(axes: Axes, row: RowView, point: labels.Point, *, gid: str) -> None:
    bar: dict[str, Any] = {"color": row.mark.colour, "linewidth": 2, "solid_capstyle": "butt"}
    axes.plot([point.left, point.right], [point.y, point.y], **bar)
    axes.plot([point.x, point.x], [point.bottom, point.top], **bar)
    axes.plot(
        [point.x], [point.y], marker=row.mark.shape, markersize=10, markerfacecolor=row.mark.colour,
        markeredgecolor=svg.INK, markeredgewidth=0.75, linestyle="none", gid=gid, zorder=3,
    )  # fmt: skip


def _title(row: RowView) -> str:
    return f"{row.name}: " + ", ".join(f"{name} {value} ({interval})" for name, value, interval in _numbers(row))


def _spoken(rows: Sequence[RowView]) -> str:
    each = []
    for row in rows[:_SPOKEN]:
        robust, asr = row.result.metrics["robust_accuracy"].value, row.result.metrics["asr"].value
        assert robust is not None
        assert asr is not None
        each.append(f"{row.name}: {percent(robust)} and {percent(1 - asr)}")
    rest = [f"and {count(len(rows) - _SPOKEN, 'more row')}, all in the table below"] if len(rows) > _SPOKEN else []
    text = f"Robust accuracy (across) and 1 \N{MINUS SIGN} ASR (upwards) of each row. {'; '.join([*each, *rest])}."
    return text.replace(SPACE, " ")
