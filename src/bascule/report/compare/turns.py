"""Where an effect over a map turns from rising to falling: the line, the numbers, the sentence, and how sure it is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bascule.metrics.paired import Difference
from bascule.report.compare.maps import Axis, Layer, Map
from bascule.report.compare.pairwise import between
from bascule.report.words import count, joined

Point = tuple[float, float]
_TRIED = "all that were tried"


class Segment(NamedTuple):
    """A piece of the line, in places of the map's values: 0.5 lies half way from the first value to the second."""

    start: Point
    end: Point
    sure: bool
    """Whether it parts places with a clear rise from ones with a clear fall."""


def signs_of(one: Map, layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The values of a layer of differences, of shape (upwards, across), NaN where not known; and which are clear."""
    values = np.full((len(one.up.values), len(one.across.values)), np.nan)
    clear = np.zeros(values.shape, dtype=bool)
    for row, column in np.ndindex(values.shape):
        place = one.across.values[column], one.up.values[row]
        number = layer.numbers.get(place)
        if number is not None and number.value is not None:
            values[row, column], clear[row, column] = number.value, not layer.doubtful(place)
    return values, clear


def zero_line(values: NDArray[np.float64], clear: NDArray[np.bool_]) -> list[Segment]:
    """The line along which a quantity over a map is 0, by linear interpolation between neighbours (marching squares).

    It goes on to half a place beyond the outermost known values. What is exactly 0 counts as no rise.

    Args:
        values: Of shape (upwards, across); NaN where nothing is known, and there the line has a gap.
        clear: Where the sign is clear, of the same shape.
    """
    known = np.isfinite(values)
    if not known.any():
        return []
    (bottom, top), (left, right) = ((some.min(), some.max() + 1) for some in np.nonzero(known))
    inner = (slice(bottom, top), slice(left, right))
    padded, sure = (np.pad(part[inner], 1, mode="edge") for part in (values, clear))
    xs, ys = (np.array([low - 0.5, *range(low, high), high - 0.5]) for low, high in ((left, right), (bottom, top)))
    segments = []
    for row, column in np.ndindex(padded.shape[0] - 1, padded.shape[1] - 1):
        corners = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
        if not all(np.isfinite(padded[corner]) for corner in corners):
            continue
        places = [(float(xs[corner[1]]), float(ys[corner[0]])) for corner in corners]
        segments += _of_square(places, [float(padded[one]) for one in corners], [bool(sure[one]) for one in corners])
    return segments


def _of_square(places: Sequence[Point], values: Sequence[float], clear: Sequence[bool]) -> list[Segment]:
    """The line through a square, whose corners go around."""
    crossings = []
    for first, second in ((0, 1), (1, 2), (2, 3), (3, 0)):
        if (values[first] > 0) != (values[second] > 0):
            share = values[first] / (values[first] - values[second])
            (x, y), (x2, y2) = places[first], places[second]
            crossings.append(((x + share * (x2 - x), y + share * (y2 - y)), clear[first] and clear[second]))
    if len(crossings) == 4 and (float(np.mean(values)) > 0) != (values[0] > 0):  # a saddle: the middle decides
        crossings = [*crossings[1:], crossings[0]]
    return [
        Segment(start, end, sure and also)
        for (start, sure), (end, also) in zip(crossings[::2], crossings[1::2], strict=True)
        if start != end
    ]


# --- along one line of the map ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stretch:
    """Neighbouring numbers across at which the effect has the same sign."""

    sign: int
    numbers: tuple[float, ...]
    clear: tuple[float, ...]
    """Those at which it is clear."""


@dataclass(frozen=True)
class Turn:
    """Where an effect changes its sign, between two stretches in which it is clear."""

    low: float
    """The last number at which it clearly has the one sign."""
    high: float
    """The first at which it clearly has the other."""
    near: float | None
    """Where it is 0 by linear interpolation; None where the sign changes more than once in between."""


def stretches(effects: Mapping[float, Difference]) -> list[Stretch]:
    """By rising number; places without a difference are left out."""
    known = [(number, effect) for number, effect in sorted(effects.items()) if effect.value is not None]
    return [
        Stretch(
            sign,
            tuple(number for number, _ in part),
            tuple(number for number, effect in part if effect.change in ("up", "down")),
        )
        for sign, group in itertools.groupby(known, key=lambda one: int(np.sign(one[1].value or 0.0)))
        for part in [list(group)]
    ]


def turns(effects: Mapping[float, Difference]) -> list[Turn]:
    """Where a clear rise and a clear fall follow each other, with nothing clear between them."""
    sure = [stretch for stretch in stretches(effects) if stretch.clear]
    found = []
    for before, after in itertools.pairwise(sure):
        if before.sign != after.sign:
            low, high = before.clear[-1], after.clear[0]
            found.append(Turn(low, high, _zero_between(effects, low, high)))
    return found


def _zero_between(effects: Mapping[float, Difference], low: float, high: float) -> float | None:
    known = [
        (number, effect.value)
        for number, effect in sorted(effects.items())
        if low <= number <= high and effect.value is not None
    ]
    zeros = [
        x + (x2 - x) * value / (value - value2)
        for (x, value), (x2, value2) in itertools.pairwise(known)
        if (value > 0) != (value2 > 0)
    ]
    return zeros[0] if len(zeros) == 1 else None


# --- in words --------------------------------------------------------------------------------------------------------


def summary(one: Map, effect: Layer) -> str:
    """How many places of the map rise and fall clearly; empty where nothing is compared."""
    known = [number for number in effect.numbers.values() if isinstance(number, Difference)]
    known = [number for number in known if number.value is not None]
    if not known:
        return ""
    tally = {change: sum(number.change == change for number in known) for change in ("up", "down", "unclear")}
    seeds = between([number.seeds for number in known], "seed")
    who = "Hardening" if one.hardens else one.name or "The row"
    if all(number.too_few_seeds for number in known):
        return f"{who} against {one.reference}: at one seed no change of ASR is clear."
    return (
        f"{who} against {one.reference}, at {count(len(known), 'place')} of the map: ASR clearly rises at "
        f"{tally['up']}, clearly falls at {tally['down']}, and does not clearly differ at {tally['unclear']} ({seeds})."
    )


def sentences(one: Map, effect: Layer) -> list[str]:
    """For the numbers upwards that are compared: where ASR rises and falls across the map, and where it turns.

    Those of which the same is said share a sentence.
    """
    said: dict[tuple[str, str], list[float]] = {}
    for number in one.up.values:
        line = {x: change for (x, y), change in effect.numbers.items() if y == number}
        changes = {x: change for x, change in line.items() if isinstance(change, Difference)}
        if any(change.value is not None for change in changes.values()):
            said.setdefault(_predicate(one.across, changes), []).append(number)
    return [f"{_subject(one, numbers)} {what}.{turning}" for (what, turning), numbers in said.items()]


def _subject(one: Map, numbers: Sequence[float]) -> str:
    named = joined([f"{number:g}" for number in numbers])
    if one.hardens:
        return f"Hardening at eps {named}"
    return f"{one.name + ' at' if one.name else 'At'} {one.up.label} {named}{'' if one.name else ', the row'}"


def _predicate(across: Axis, effects: Mapping[float, Difference]) -> tuple[str, str]:
    """`lowers ASR for triggers of strength up to 0.2 (clear in 1 of 2) and raises ...`, and where it turns."""
    found = stretches(effects)
    every = [number for stretch in found for number in stretch.numbers]
    sure = [stretch for stretch in found if stretch.clear]
    open_ = [number for stretch in found if not stretch.clear for number in stretch.numbers]
    missing = [number for number in across.values if number not in every]
    ends = f"; not measured at {joined([f'{number:g}' for number in missing])}" if missing else ""
    if not sure:
        seeds = between([effects[number].seeds for number in every], "seed")
        return f"changes ASR clearly nowhere {_for(across)} {_range(every, every)} ({seeds}){ends}", ""
    parts = []
    for place, stretch in enumerate(sure):
        verb = "raises" if stretch.sign > 0 else "lowers"
        what = f"ASR {_for(across)}" if place == 0 else "it for"
        parts.append(f"{verb} {what} {_range(stretch.numbers, every)} ({_clear(stretch)})")
    if open_:
        ends = f"; at {joined([f'{number:g}' for number in open_])} that is not clear{ends}"
    return f"{joined(parts)}{ends}", "".join(map(_turn, turns(effects)))


def _for(across: Axis) -> str:
    last = across.label.removeprefix("trigger ")
    return f"for triggers of {last}" if across.label != last else f"for {last}"


def _range(numbers: Sequence[float], every: Sequence[float]) -> str:
    """A stretch of numbers among all that were tried."""
    first, last = f"{numbers[0]:g}", f"{numbers[-1]:g}"
    if numbers[0] == every[0] and numbers[-1] == every[-1]:
        return f"{first} to {last}, {_TRIED}" if first != last else first
    if numbers[0] == every[0]:
        return f"up to {last}"
    if numbers[-1] == every[-1]:
        return f"{first} and more"
    return first if first == last else f"{first} to {last}"


def _clear(stretch: Stretch) -> str:
    many, sure = len(stretch.numbers), len(stretch.clear)
    if many == 1:
        return "clear"
    whole = "both" if many == 2 else f"all {many}"
    return f"clear in {whole if sure == many else f'{sure} of {many}'}"


def _turn(turn: Turn) -> str:
    near = "" if turn.near is None else f", near {turn.near:.2g}"
    return f" It turns between {turn.low:g} and {turn.high:g}{near}."
