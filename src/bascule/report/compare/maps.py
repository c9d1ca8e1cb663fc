"""Rows whose settings differ in two numbers, as maps: a metric at each place, and what changes against a reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.core.errors import RequestError, unknown
from bascule.metrics.contract import Measure
from bascule.metrics.paired import Difference, difference
from bascule.record.rows import RowResult
from bascule.report.compare.comparable import groups_of
from bascule.report.words import setting

HARDENING = "train.objective.eps"
"""The setting that is 0 where nothing is hardened: such a row is the reference of the others."""

Place = tuple[float, float]
"""The numbers across and upwards."""
Cells = Mapping[Place, RowResult]


@dataclass(frozen=True)
class Axis:
    """A number that differs between the rows of a map."""

    path: str
    values: tuple[float, ...]
    """Different ones, rising."""

    @property
    def label(self) -> str:
        """What people call it: `eps`, `trigger strength`."""
        *above, last = self.path.split(".")
        return " ".join([*(["trigger"] if above[-1:] == ["trigger"] else []), last.replace("_", " ")])


@dataclass(frozen=True)
class Layer:
    """One quantity over a map."""

    name: str
    """For files: `asr`, `effect`."""
    title: str
    numbers: Mapping[Place, Measure | Difference]
    signed: bool = False
    """Whether it is a difference, so that 0 is where it turns."""

    def doubtful(self, place: Place) -> bool:
        """Whether it is a difference that may be none."""
        number = self.numbers.get(place)
        return isinstance(number, Difference) and number.change == "unclear"


@dataclass(frozen=True)
class Map:
    """Rows that differ in two numbers and nothing else."""

    name: str
    """The row, its run where there are several, and what else varies; empty where rows of several names make it."""
    across: Axis
    up: Axis
    cells: Cells
    references: Cells
    """By place, the row that the one there is compared with, where there is one."""

    @property
    def reference(self) -> str:
        """What the references are called; empty without any."""
        if self.references and all(row.row == self.cells[place].row for place, row in self.references.items()):
            return f"{self.up.label} 0"  # the same row, not hardened
        return " or ".join(dict.fromkeys(row.row for row in self.references.values()))

    @property
    def hardens(self) -> bool:
        """Whether each row is compared with the one that is not hardened, at the same number across."""
        return bool(self.references) and all(
            self.cells.get((across, 0.0)) is row for (across, _), row in self.references.items()
        )


def maps_of(rows: Sequence[RowResult], against: str | None = None) -> list[Map]:
    """Every map that the rows make, run by run; none where no two numbers differ.

    Two numbers that the study varies make one map for each row and for each value of what else varies. Where it varies
    one number, the other may be in the rows: those that differ in a single number make a map, and a row trained without
    hardening stands at eps 0 of those that are hardened. A number of the training goes upwards.

    Args:
        rows: Of one run or of several.
        against: Name of the row to compare with at the same varied values. By default each row is compared with the one
            that is not hardened, or else with the first one of its kind.

    Raises:
        RequestError: No row has this name.
    """
    if against is not None and against not in (known := dict.fromkeys(row.row for row in rows)):
        raise RequestError(unknown("row", against, known))
    found = []
    for run in dict.fromkeys(row.run for row in rows):
        own = [row for row in rows if row.run == run]
        for name, across, up, cells in _planes(own):
            if len(across.values) > 1 and len(up.values) > 1:
                found.append(Map(name, across, up, cells, _references(own, up, cells, against)))
    return found


def layers_of(one: Map) -> list[Layer]:
    """What there is to see of a map: ASR, ASR less its twin's, ASR less the reference's, robust accuracy."""
    layers = [
        Layer("asr", "ASR", _measures(one, "asr")),
        Layer("asr-less-twin", "ASR less that of the twin", _beyond_twin(one), signed=True),
        effect_of(one),
        Layer("robust-accuracy", "Robust accuracy", _measures(one, "robust_accuracy")),
    ]
    return [layer for layer in layers if any(number.value is not None for number in layer.numbers.values())]


def effect_of(one: Map) -> Layer:
    """ASR less that of the reference, paired by seed and image."""
    changes = {
        place: difference(row.kinds["asr"], one.references[place].outcomes, row.outcomes)
        for place, row in one.cells.items()
        if place in one.references and "asr" in row.kinds
    }
    return Layer("effect", f"ASR less that of {one.reference}", changes, signed=True)


def _measures(one: Map, name: str) -> dict[Place, Measure | Difference]:
    return {place: row.metrics[name] for place, row in one.cells.items() if name in row.metrics}


def _beyond_twin(one: Map) -> dict[Place, Measure | Difference]:
    numbers: dict[Place, Measure | Difference] = {}
    for place, row in one.cells.items():
        twins = {seed: outcomes.twin for seed, outcomes in row.outcomes.items() if outcomes.twin is not None}
        if twins and "asr" in row.kinds:
            numbers[place] = difference(row.kinds["asr"], twins, row.outcomes)
    return numbers


# --- which rows make a map -------------------------------------------------------------------------------------------

_Plane = tuple[str, Axis, Axis, dict[Place, RowResult]]


def _planes(rows: Sequence[RowResult]) -> Iterator[_Plane]:
    """The maps of one run."""
    varied = [path for path in dict.fromkeys(path for row in rows for path in row.vary) if _varies(rows, path)]
    if len(varied) > 1:
        first, second = sorted(varied[:2], key=lambda path: path.startswith("train."))
        for group in _grouped(rows, lambda row: (row.row, *_rest(row, first, second))):
            name = " · ".join((group[0].name, *_rest(group[0], first, second)))
            yield _plane(name, first, second, {(row.vary[first], row.vary[second]): row for row in group})
    elif varied:
        (path,) = varied
        for group in _grouped(rows, lambda row: _rest(row, path)):
            yield from _planes_with_rows(group, path)


def _planes_with_rows(rows: Sequence[RowResult], across: str) -> Iterator[_Plane]:
    """Maps whose number upwards is in the rows; each row is in one at most, but for one that is not hardened."""
    first = [row for row in rows if row.vary[across] == rows[0].vary[across]]
    every = {row.row: _leaves(row.settings) for row in first}
    left = dict(every)
    paths = dict.fromkeys(path for leaves in left.values() for path, value in leaves.items() if _is_number(value))
    for up in paths:
        different = {leaves[up] for leaves in left.values() if _is_number(leaves.get(up))}
        if up == across or (len(different) < 2 and up != HARDENING):
            continue
        groups: dict[str, dict[str, float]] = {}
        for name, leaves in left.items():
            if _is_number(leaves.get(up)):
                key = json.dumps({path: value for path, value in leaves.items() if path != up}, sort_keys=True)
                groups.setdefault(key, {})[name] = leaves[up]
        for numbers in groups.values():
            if up == HARDENING and 0 not in numbers.values():
                numbers |= _unhardened(every, next(iter(numbers)))
            if len(set(numbers.values())) < 2:
                continue
            cells = {(row.vary[across], numbers[row.row]): row for row in rows if row.row in numbers}
            rest = _rest(rows[0], across)
            yield _plane(" · ".join(filter(None, (rows[0].run, *rest))), across, up, cells)
            left = {name: leaves for name, leaves in left.items() if name not in numbers}


def _unhardened(rows: Mapping[str, Mapping[str, Any]], hardened: str) -> dict[str, float]:
    """The row that is like this one but trained in the standard way, at eps 0."""

    def beside(leaves: Mapping[str, Any]) -> dict[str, Any]:
        return {path: value for path, value in leaves.items() if not path.startswith("train.objective.")}

    like = beside(rows[hardened])
    plain = (name for name, leaves in rows.items() if leaves.get("train.objective.name") == "standard")
    return {name: 0.0 for name in plain if beside(rows[name]) == like}


def _plane(name: str, across: str, up: str, cells: dict[Place, RowResult]) -> _Plane:
    xs, ys = (tuple(sorted({place[side] for place in cells})) for side in (0, 1))
    return name, Axis(across, xs), Axis(up, ys), cells


def _references(rows: Sequence[RowResult], up: Axis, cells: Cells, against: str | None) -> dict[Place, RowResult]:
    """Whom each row is compared with; nobody with itself."""
    if against is None and up.path == HARDENING and up.values[0] == 0:
        pairs = {place: cells.get((place[0], 0.0)) for place in cells}
    else:
        pairs = {place: _beside(rows, row, against) for place, row in cells.items()}
    return {place: other for place, other in pairs.items() if other is not None and other is not cells[place]}


def _beside(rows: Sequence[RowResult], row: RowResult, against: str | None) -> RowResult | None:
    """The row with this name, or the first that may be compared, among those with the same varied values."""
    same = [other for other in rows if other.vary == row.vary]
    if against is not None:
        return next((other for other in same if other.row == against), None)
    return next((other for other in same if other is row or len(groups_of([other, row])) == 1), None)


def _grouped(rows: Sequence[RowResult], key: Any) -> list[list[RowResult]]:
    groups: dict[Any, list[RowResult]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _rest(row: RowResult, *paths: str) -> tuple[str, ...]:
    """What else varies, in words."""
    return tuple(f"{path} {setting(value)}" for path, value in row.vary.items() if path not in paths)


def _varies(rows: Sequence[RowResult], path: str) -> bool:
    """Whether it is a number in all rows, and not the same in all."""
    values = [row.vary.get(path) for row in rows]
    return all(map(_is_number, values)) and len(set(values)) > 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _leaves(settings: Any, path: str = "") -> dict[str, Any]:
    """Settings by their path; lists stand there whole."""
    if not isinstance(settings, Mapping):
        return {path: settings}
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        leaves |= _leaves(value, f"{path}.{key}" if path else str(key))
    return leaves
