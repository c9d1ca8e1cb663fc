"""Maps: a metric over two numbers in which rows differ, and the line where its change against the reference turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from bascule.core.grid import TableCell
from bascule.metrics.wording import UNKNOWN
from bascule.report.compare.maps import Axis, Layer, Map, Place, layers_of, maps_of
from bascule.report.compare.turns import sentences, signs_of, summary, zero_line
from bascule.report.drawing import svg
from bascule.report.tables.maps import number_cell
from bascule.report.tables.tables import ONE_IN_TWENTY
from bascule.report.view import View
from bascule.report.words import SPACE

TITLE = "Maps"
PLACE = 35

_WIDTH, _TOP, _LEFT, _RIGHT, _BOTTOM = 440, 8, 62, 8, 50
_WIDE, _HIGH = 41, 34
"""Least of a place, in pixels."""
_MAPS = 6
"""Most maps that are drawn; the tables are always there."""
_TOUCHED = 60
"""With more places than this none takes the focus: the table has the numbers."""
_SPOKEN = 12
"""Lines that the text alternative of a picture reads out."""
_SHARES, _SIGNED = "cividis", "RdBu_r"
"""Even for every kind of colour vision; the second is white at 0."""
_LEAST = 0.05
"""The least difference that has the full colour."""
_DARK, _LIGHT = "#000000", "#ffffff"
"""On the colours of the map, whatever the page."""
_DOUBT = 0.32
"""Half the side of a doubtful place's square."""


@dataclass(frozen=True)
class Numbers:
    """The table of a layer."""

    title: str
    across: list[str]
    lines: list[tuple[str, list[TableCell]]]


@dataclass(frozen=True)
class Chart:
    """A map with everything that is said of it."""

    name: str
    across: Axis
    up: Axis
    summary: str
    sentences: list[str]
    wide: bool
    """Whether a picture takes more than half of a page."""
    pictures: list[tuple[str, svg.Drawing]]
    tables: list[Numbers]


def context(view: View) -> Mapping[str, Any] | None:
    """All maps; nothing where no rows differ in two numbers."""
    charts = [_chart(place, one) for place, one in enumerate(maps_of([row.result for row in view.rows]))]
    charts = [chart for chart in charts if chart.tables]
    if not charts:
        return None
    return {
        "charts": charts,
        "turns": any(chart.sentences for chart in charts),
        "one_in_twenty": ONE_IN_TWENTY,
    }


def _chart(place: int, one: Map) -> Chart:
    layers = layers_of(one)
    effect = next((layer for layer in layers if layer.name == "effect"), None)
    shown = sorted(layers, key=lambda layer: layer is not effect) if place < _MAPS else []
    return Chart(
        name=one.name,
        across=one.across,
        up=one.up,
        summary="" if effect is None else summary(one, effect),
        sentences=[] if effect is None else sentences(one, effect),
        wide=_width(one) > _WIDTH,
        pictures=[(layer.title, _picture(f"map-{place}-{layer.name}", one, layer)) for layer in shown],
        tables=[_table(one, layer) for layer in layers],
    )


def _table(one: Map, layer: Layer) -> Numbers:
    lines = [
        (f"{y:g}", [number_cell(layer, (x, y)) for x in one.across.values])
        for y in one.up.values
        if any((x, y) in layer.numbers for x in one.across.values)
    ]
    unit = "points" if layer.signed else "%"
    return Numbers(f"{layer.title}, {unit}", [f"{x:g}" for x in one.across.values], lines)


# --- the picture -----------------------------------------------------------------------------------------------------


def _width(one: Map) -> int:
    return max(_WIDTH, _LEFT + _RIGHT + _WIDE * len(one.across.values))


def _picture(name: str, one: Map, layer: Layer) -> svg.Drawing:
    xs, ys = one.across.values, one.up.values
    with svg.drawing():
        axes = svg.axes_of(_WIDTH, _TOP + _BOTTOM + _HIGH * len(ys), left=_LEFT, right=_RIGHT, top=_TOP, bottom=_BOTTOM)
        axes.grid(visible=False)
        axes.set(xlim=(-0.5, len(xs) - 0.5), ylim=(-0.5, len(ys) - 0.5), xticks=range(len(xs)), yticks=range(len(ys)))
        axes.set_xticklabels([f"{x:g}" for x in xs])
        axes.set_yticklabels([f"{y:g}" for y in ys])
        axes.set_xlabel("across", labelpad=6)
        axes.set_ylabel("upwards", labelpad=6)
        colours = _colours(layer)
        titles = {}
        for row, y in enumerate(ys):
            for column, x in enumerate(xs):
                gid = f"place-{row}-{column}"
                if _draw(axes, (column, row), one, layer, (x, y), colours.get((x, y)), gid):
                    titles[gid] = _title(one, layer, (x, y))
        if layer.name == "effect":
            _line(axes, one, layer)
        return svg.svg(
            axes, name=name, label=_spoken(one, layer), titles=titles if len(titles) <= _TOUCHED else {},
            texts={"across": _axis_title(one.across), "upwards": _axis_title(one.up)},
        )  # fmt: skip


def _axis_title(axis: Axis) -> str:
    return axis.label if axis.label != "eps" else f"eps ({axis.path})"


def _colours(layer: Layer) -> dict[Place, Any]:
    """The colour of each place that is known."""
    values = {place: number.value for place, number in layer.numbers.items() if number.value is not None}
    if not layer.signed:
        return {place: matplotlib.colormaps[_SHARES](value) for place, value in values.items()}
    most = max(_LEAST, *map(abs, values.values())) if values else _LEAST
    return {place: matplotlib.colormaps[_SIGNED](0.5 + value / most / 2) for place, value in values.items()}


def _draw(axes: Axes, middle: tuple[int, int], one: Map, layer: Layer, place: Place, colour: Any, gid: str) -> bool:
    """One place with its value: a full square, a small one for a doubtful difference, an empty one where nothing is
    known. Whether there is anything to say of it."""
    column, row = middle
    if colour is None:
        axes.add_patch(Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor=svg.RULE, linewidth=1))
        says = "ref." if layer.name == "effect" and _is_reference(one, place) else UNKNOWN
        axes.text(column, row, says, ha="center", va="center", fontsize=svg.TEXT_SIZE - 2, color=svg.INK)
        return False
    doubtful = layer.doubtful(place)
    wide, high = (_DOUBT + 0.08, _DOUBT) if doubtful else (0.5, 0.5)
    square = Rectangle((column - wide, row - high), 2 * wide, 2 * high, facecolor=to_hex(colour), linewidth=0, gid=gid)
    axes.add_patch(square)
    axes.text(
        column, row, _value(layer, place), ha="center", va="center_baseline", color=ink_on(colour),
        fontsize=svg.TEXT_SIZE - 1, zorder=3, bbox={"facecolor": to_hex(colour), "linewidth": 0, "pad": 0.5},
    )  # fmt: skip
    return True


def ink_on(colour: Any) -> str:
    """Black or white, whichever can be read on a colour of the maps (WCAG 2, level AA)."""
    red, green, blue = (np.asarray(colour[:3]) ** 2.2).tolist()
    return _DARK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else _LIGHT


def _is_reference(one: Map, place: Place) -> bool:
    own = one.cells.get(place)
    return own is not None and any(row is own for row in one.references.values())


def _value(layer: Layer, place: Place) -> str:
    """In whole percent or points, with a question mark where it may be none."""
    value = layer.numbers[place].value
    assert value is not None
    text = f"{100 * value:+.0f}" if layer.signed else f"{100 * value:.0f}"
    text = "0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
    return f"{text}?" if layer.doubtful(place) else text


def _line(axes: Axes, one: Map, layer: Layer) -> None:
    """Where the difference is 0: whole between clear places, dotted elsewhere; dark on a light edge for any colour."""
    for segment in zero_line(*signs_of(one, layer)):
        across, upwards = zip(segment.start, segment.end, strict=True)
        dots: Any = "solid" if segment.sure else (0, (1, 1.4))
        axes.plot(across, upwards, color=_LIGHT, linewidth=4.5, solid_capstyle="round", zorder=2.5)
        axes.plot(across, upwards, color=_DARK, linewidth=2.25, linestyle=dots, zorder=2.6)


def _title(one: Map, layer: Layer, place: Place) -> str:
    cell = number_cell(layer, place)
    unit = "points" if layer.signed else "%"
    where = f"{one.across.label} {place[0]:g}, {one.up.label} {place[1]:g}"
    inside = f" ({cell.interval})" if cell.interval else ""
    return f"{where}: {layer.title} {cell.value}{SPACE}{unit}{inside}"


def _spoken(one: Map, layer: Layer) -> str:
    lines = []
    for y in one.up.values[:_SPOKEN]:
        known = [(x, y) for x in one.across.values if (x, y) in layer.numbers]
        known = [place for place in known if layer.numbers[place].value is not None]
        if known:
            values = [f"{_value(layer, place)} at {place[0]:g}" for place in known]
            lines.append(f"{one.up.label} {y:g}: {', '.join(values)}")
    unit = "points; a question mark: may be none" if layer.signed else "percent"
    about = f"{layer.title} ({unit}) by {one.across.label} across and {one.up.label} upwards"
    name = f"{one.name}: " if one.name else ""
    return f"{name}{about}. {'; '.join(lines)}."
