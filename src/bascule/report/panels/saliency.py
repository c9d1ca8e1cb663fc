"""Where the models look: heat maps of test images without and with the trigger, and the share on the trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.core import tiles
from bascule.core.grid import TableCell
from bascule.metrics.contract import Measure
from bascule.metrics.paired import least_seeds
from bascule.metrics.wording import UNKNOWN, table_cell
from bascule.record.plan import came_as_it_is
from bascule.report.drawing import labels, svg
from bascule.report.drawing.picture import Picture
from bascule.report.evidence import Evidence, evidence, measure_of
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, count, joined

TITLE = "Where the models look"
PLACE = 70

_EXAMPLES = (2, 6)
"""Fewest and most test images in a gallery."""
_BYTES = 3_000_000
"""Most that all galleries may take, in pixels of one byte per colour; files are smaller."""
_WIDTH, _LINE, _LEFT = 400, 30, 140
_SHEET = 440
"""Most pixels that a gallery's half is wide."""
_DRAWN = 30
"""With more rows than this the picture of the attention is left to the table."""


@dataclass(frozen=True)
class Gallery:
    """A few test images of a row with their heat."""

    row: RowView
    clean: Picture
    clean_label: str
    stamped: Picture | None
    stamped_label: str
    seed: int


@dataclass(frozen=True)
class Attention:
    """How much of the heat lies on the trigger's pixels."""

    row: RowView
    measure: Measure
    twin: Measure
    clean: float | None
    """The same pixels in images without the trigger."""
    chance: float | None
    """Share of the pixels that the trigger changes."""
    seeds: int
    numbers: tuple[TableCell, ...]
    """In the order of the table: triggered, twin, without the trigger, chance."""


@dataclass(frozen=True)
class Method:
    """What one method shows of all rows."""

    method: str
    galleries: list[Gallery]
    left: list[RowView]
    """Rows whose gallery would make the page too large."""
    attention: list[Attention]
    picture: svg.Drawing | None
    marks: str
    """What filled and hollow marks of the picture stand for."""
    sentences: list[str]


def context(view: View) -> Mapping[str, Any] | None:
    """One part for each method of explanation; nothing where there are no heat maps."""
    methods: dict[str, list[Evidence]] = {}
    for part in evidence(view, "explain"):
        heat = part.having("heat_clean")
        if heat is not None:
            methods.setdefault(heat.method, []).append(heat)
    if not methods:
        return None
    each = _BYTES // sum(map(len, methods.values()))
    budget = _Budget(_BYTES, each)
    return {"methods": [_method(place, name, parts, budget) for place, (name, parts) in enumerate(methods.items())]}


def _method(place: int, name: str, parts: Sequence[Evidence], budget: _Budget) -> Method:
    galleries: list[Gallery] = []
    left: list[RowView] = []
    for part in parts:
        gallery = _gallery(f"saliency-{place}-{len(galleries)}", part, budget)
        if gallery is None:
            left.append(part.row)
        else:
            galleries.append(gallery)
    attention = [one for part in parts if (one := _attention(part)) is not None]
    picture = _picture(place, attention) if attention and len(attention) <= _DRAWN else None
    return Method(name, galleries, left, attention, picture, _marks(attention), _sentences(attention))


# --- heat maps -------------------------------------------------------------------------------------------------------


class _Budget:
    """How many examples fit on the page."""

    def __init__(self, total: int, each: int) -> None:
        self._left, self._each = total, each

    def examples(self, height: int, width: int) -> int:
        """For images of this size; 0 when there is no room for any."""
        factor = tiles.shrinkage(height, width)
        column = 4 * 4 * ceil(height / factor) * ceil(width / factor)
        least, most = _EXAMPLES
        chosen = min(most, max(least, self._each // column))
        if chosen * column > self._left:
            return 0
        self._left -= chosen * column
        return chosen


def _gallery(name: str, part: Evidence, budget: _Budget) -> Gallery | None:
    seed, finding = next(iter(part.models.items()))
    parts = finding.arrays
    if "clean" not in parts or parts["heat_clean"].ndim != 3 or not len(parts["heat_clean"]):
        return None
    examples = budget.examples(*parts["heat_clean"].shape[1:])
    if not examples:
        return None
    stamped = None
    words = f"test images {{}} the trigger, and below each its heat under {part.row.name}"
    if "stamped" in parts and "heat_stamped" in parts:
        stamped = _sheet(parts["stamped"], parts["heat_stamped"], f"{name}-with", words.format("with"), examples)
    clean = _sheet(parts["clean"], parts["heat_clean"], f"{name}-without", words.format("without"), examples)
    target = "the target" if part.target is None else f"class {part.row.class_name(part.target)}, the target"
    return Gallery(part.row, clean, "their own label", stamped, target, seed)


def _sheet(images: tiles.Pixels, heat: NDArray[Any], name: str, label: str, examples: int) -> Picture:
    above = [tiles.tile(image) for image in images[:examples]]
    below = [tiles.heat(values) for values in heat[:examples]]
    return Picture(tiles.sheet([above, below]), name, label[:1].upper() + label[1:], most=_SHEET)


# --- attention -------------------------------------------------------------------------------------------------------


def _attention(part: Evidence) -> Attention | None:
    heat = part.having("attention")
    if heat is None:
        return None
    measure = measure_of("trigger-attention", attention=_arrays(heat.models, "attention"))
    if measure.value is None:
        return None
    twin = measure_of("trigger-attention", attention=_arrays(heat.twins, "attention"))
    clean = measure_of("trigger-attention", attention=_arrays(heat.models, "attention_clean"))
    chance = [values for values in _arrays(heat.models, "chance") if np.isfinite(values).any()]
    area = float(np.mean([np.nanmean(values) for values in chance])) if chance else None
    share = TableCell(UNKNOWN if area is None else f"{100 * area:.1f}")
    numbers = (table_cell(measure), table_cell(twin), table_cell(clean), share)
    return Attention(part.row, measure, twin, clean.value, area, len(heat.models), numbers)


def _marks(attention: Sequence[Attention]) -> str:
    """What filled and hollow marks stand for: what came as it is was not made here, with or without a backdoor."""
    given = sum(came_as_it_is(one.row.result.settings) for one in attention)
    as_they_are = "models that came as they are, whatever is in them"
    if given == len(attention):
        return f"Filled: {as_they_are}."
    also = f", and {as_they_are}" if given else ""
    return f"Filled: models with the backdoor planted{also}. Hollow: {'' if given else 'their '}twins, trained without."


def _arrays(findings: Mapping[int, Any], name: str) -> list[NDArray[np.float64]]:
    return [
        np.asarray(finding.arrays[name], dtype=np.float64) for finding in findings.values() if name in finding.arrays
    ]


def _sentences(attention: Sequence[Attention]) -> list[str]:
    """Who looks at the trigger, as far as the intervals can tell."""
    above: list[str] = []
    below: list[str] = []
    same: list[str] = []
    for one in attention:
        low, high = one.measure.low, one.measure.high
        if one.chance is None or low is None or high is None:
            continue
        (above if low > one.chance else below if high < one.chance else same).append(one.row.name)
    sentences = []
    if above:
        sentences.append(f"More heat on the trigger than its area alone would get: {joined(above)}.")
    if same:
        sentences.append(f"Not separated from chance: {joined(same)}.")
    if below:
        sentences.append(f"Less than chance: {joined(below)}.")
    if len(attention) == 2:
        sentences.append(_two(*sorted(attention, key=lambda one: -(one.measure.value or 0))))
    return sentences


def _two(more: Attention, less: Attention) -> str:
    """Two rows against each other."""
    low, high = more.measure.low, less.measure.high
    first, second = more.row.result.outcomes, less.row.result.outcomes
    if len(first.keys() & second.keys()) < least_seeds(first, second):
        return f"One seed does not tell whether {more.row.name} or {less.row.name} looks at the trigger more."
    if low is not None and high is not None and low > high:
        return f"{more.row.name} looks at the trigger more than {less.row.name}: their intervals do not overlap."
    return f"The intervals of {more.row.name} and {less.row.name} overlap: neither is shown to look at it more."


def _picture(place: int, attention: Sequence[Attention]) -> svg.Drawing:
    """Dots with intervals, one line per row, the chance level a tick and the twin a hollow mark."""
    with svg.drawing():
        height = _LINE * len(attention) + 58
        axes = svg.axes_of(_WIDTH, height, left=_LEFT, right=16, top=8, bottom=50)
        edges = [one.measure.high or one.measure.value or 0 for one in attention]
        edges += [value for one in attention for value in (one.twin.high, one.chance) if value is not None]
        axes.set(xlim=(0, min(104.0, 112 * max(edges)) or 1), ylim=(len(attention) - 0.5, -0.5), yticks=[])
        axes.set_xlabel("Trigger attention, % of the heat", labelpad=8)
        texts = {}
        for line, one in enumerate(attention):
            texts[f"name-{line}"] = labels.shortened(one.row.name, size=svg.TEXT_SIZE, width=_LEFT - 16)
            axes.annotate(
                f"name-{line}", (_LEFT - 10, 50 + _LINE * (len(attention) - line - 0.5)), xycoords="figure points",
                ha="right", va="center_baseline",
            )  # fmt: skip
            _dot(axes, line, one)
        return svg.svg(axes, name=f"attention-{place}", label=_spoken(attention), texts=texts)


def _dot(axes: Any, line: int, one: Attention) -> None:
    colour, shape = one.row.mark.colour, one.row.mark.shape
    for measure, offset, fill in ((one.measure, -0.12, colour), (one.twin, 0.24, "none")):
        if measure.value is None:
            continue
        low, high = (100 * (measure.value if end is None else end) for end in (measure.low, measure.high))
        twin = measure is one.twin
        axes.plot([low, high], [line + offset] * 2, color=colour, linewidth=1.25 if twin else 2)
        axes.plot(
            [100 * measure.value], [line + offset], marker=shape, markersize=6 if twin else 9, markerfacecolor=fill,
            markeredgecolor=colour if twin else svg.INK, markeredgewidth=1.25 if twin else 0.75, linestyle="none",
            zorder=3, clip_on=False,
        )  # fmt: skip
    if one.chance is not None:
        axes.plot([100 * one.chance] * 2, [line - 0.4, line + 0.4], color=svg.INK, linewidth=2)


def _spoken(attention: Sequence[Attention]) -> str:
    each = []
    for one in attention:
        beside = "" if one.chance is None else f" (chance {100 * one.chance:.1f} %)"
        each.append(f"{one.row.name} {one.numbers[0].value} %{beside}")
    return f"Trigger attention of {count(len(attention), 'row')}: {', '.join(each)}.".replace(SPACE, " ")
