"""Maps as tables of text: one for each quantity, and below the sentences on where it turns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bascule.core import grid
from bascule.core.errors import RequestError
from bascule.core.grid import Grid, TableCell
from bascule.core.text import csv_field, json_text
from bascule.metrics.paired import Difference
from bascule.metrics.wording import UNKNOWN, table_cell
from bascule.record.rows import RowResult
from bascule.report.compare.asked import asked_of
from bascule.report.compare.maps import Layer, Map, Place, layers_of, maps_of
from bascule.report.compare.turns import sentences, summary
from bascule.report.tables.tables import LEGEND, ONE_IN_TWENTY, PAIRED, Format, change_cell

_DOUBTFUL = "A question mark: the difference may be none, as its interval holds 0 or there is one seed."


def number_cell(layer: Layer, place: Place) -> TableCell:
    """What stands at a place; a question mark after a difference that may be none."""
    number = layer.numbers.get(place)
    if number is None:
        return TableCell(UNKNOWN)
    if not isinstance(number, Difference):
        return table_cell(number)
    cell = change_cell(number)
    return cell._replace(value=f"{cell.value}?") if layer.doubtful(place) else cell


def render_maps(
    rows: Sequence[RowResult], form: Format, against: str | None = None, *, width: int | None = None
) -> str:
    """All maps that the rows make, in one of the formats, ending with a line break.

    Args:
        rows: Of one run or of several.
        form: What to write. CSV has one line for each place and quantity.
        against: Name of the row to compare with; by default the one that is not hardened, or the first of its kind.
        width: Most columns of a line of text.

    Raises:
        RequestError: The rows do not differ in two numbers, or no row has the name in `against`.
    """
    maps = [(one, layers) for one in maps_of(rows, against) if (layers := layers_of(one))]
    if not maps:
        raise RequestError(
            "no map: a map needs rows that differ in two numbers and are measured, as a study has that varies "
            "`poison.trigger.strength` and `train.objective.eps`"
        )
    if form == "json":
        return json_text(json.dumps([_as_dict(*part) for part in maps], indent=1, allow_nan=False)) + "\n"
    if form == "csv":
        return _csv(maps)
    grids, below = [], []
    for one, layers in maps:
        for layer in layers:
            grids.append(_grid(one, layer))
            below.append(["", f"{layer.title}{f' · {one.name}' if one.name else ''}: {_about(one)}"])
            if layer.name == "effect":
                below[-1] += [line for line in (summary(one, layer), *sentences(one, layer)) if line]
    below[-1] += ["", *asked_of(rows), LEGEND, PAIRED, _DOUBTFUL, ONE_IN_TWENTY]
    return grid.render(grids, below, form, width=width)


def _about(one: Map) -> str:
    return f"{one.across.path} across, {one.up.path} downwards."


def _grid(one: Map, layer: Layer) -> Grid:
    lines = [
        [TableCell(f"{y:g}"), *(number_cell(layer, (x, y)) for x in one.across.values)]
        for y in one.up.values
        if any((x, y) in layer.numbers for x in one.across.values)
    ]
    unit = "points" if layer.signed else "%"
    return Grid([f"{layer.title} {unit} by {one.up.label}"], [f"{x:g}" for x in one.across.values], lines)


def _as_dict(one: Map, layers: Sequence[Layer]) -> Mapping[str, Any]:
    effect = next((layer for layer in layers if layer.name == "effect"), None)
    return {
        "name": one.name,
        "across": one.across.path,
        "up": one.up.path,
        "reference": one.reference,
        "layers": {layer.name: [_place(layer, place) for place in layer.numbers] for layer in layers},
        "sentences": [] if effect is None else [summary(one, effect), *sentences(one, effect)],
    }


def _place(layer: Layer, place: Place) -> dict[str, Any]:
    clear = {"clear": not layer.doubtful(place)} if layer.signed else {}
    return {"across": place[0], "up": place[1], **layer.numbers[place].as_dict(), **clear}


_PARTS = ("value", "low", "high", "n")


def _csv(maps: Sequence[tuple[Map, Sequence[Layer]]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["map", "quantity", "across", "up", "across_value", "up_value", *_PARTS, "clear"])
    for one, layers in maps:
        for layer in layers:
            for place, number in layer.numbers.items():
                numbers = [getattr(number, part) for part in _PARTS]
                clear = [not layer.doubtful(place)] if layer.signed and number.value is not None else [None]
                line = [one.name, layer.name, one.across.path, one.up.path, *place, *numbers, *clear]
                writer.writerow(map(csv_field, line))
    return out.getvalue()
