"""Which rows may be compared: the same images, and the same question asked of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bascule.record.rows import RowResult
from bascule.report.compare.settings import differing, same
from bascule.report.words import count, joined, setting

_COUNTS = ("max_train", "max_test", "held_out")
"""Settings of data that say how many images are used; which ones the test images are is seen from the images."""
_NAMED = 4
"""Rows and settings that a sentence names."""


def groups_of(rows: Sequence[RowResult], *, poison: bool = True, vary: bool = True) -> list[list[RowResult]]:
    """The rows in groups in which all may be compared, in their order: the rest is equal, and nothing is in the way.

    Args:
        rows: Of one run or of several.
        poison: Whether other poison is in the way. It is when recipes are compared, since what one recipe does against
            a sticker says nothing of another one against a watermark.
        vary: Whether other values of what varies are in the way.
    """
    groups: list[list[RowResult]] = []
    obstacles = _Obstacles(poison, vary)
    for row in rows:
        fitting = (group for group in groups if not any(obstacles.between(member, row) for member in group))
        group = next(fitting, None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return groups


def apart(rows: Sequence[RowResult]) -> list[str]:
    """Which rows are not compared with each other and why; one sentence for each two runs or kinds of rows.

    That rows of one run are only compared where the same is varied and planted is the study's own wish, and not said.
    """
    sentences: dict[str, str] = {}
    obstacles = _Obstacles()
    groups = groups_of(rows)
    together = {(one.run, other.run) for group in groups for one in group for other in group}
    for place, group in enumerate(groups):
        for earlier in groups[:place]:
            runs = {(first.run, second.run) for first in earlier for second in group}
            strangers = not runs & together
            pairs = [(one, other) for one in earlier for other in group]
            if not strangers and any(_vary(one) != _vary(other) or _poisoned_apart(one, other) for one, other in pairs):
                continue
            reasons = next((reasons for pair in pairs if (reasons := obstacles.of(*pair))), [_VARIED])
            first, second = map(_runs if strangers else named, (earlier, group))
            who = f"Rows of {first} are not compared with those of {second}"
            sentences.setdefault(who if strangers else f"{first} and {second} are not compared", joined(reasons))
    return [f"{who}: they have {why}" for who, why in sentences.items()]


def also_different(first: RowResult, second: RowResult) -> list[str]:
    """Settings in which two rows differ, as paths; a few of many."""
    paths = list(differing([[first.settings], [second.settings]]))
    more = len(paths) - _NAMED
    return [*paths[:_NAMED], *([count(more, "more setting")] if more > 0 else [])]


_VARIED = "other values of what varies"


class _Obstacles:
    """What stands between rows; each row's images are looked at once."""

    def __init__(self, poison: bool = True, vary: bool = True) -> None:
        self._poison, self._vary = poison, vary
        self._images: dict[int, tuple[int, str] | None] = {}

    def between(self, first: RowResult, second: RowResult) -> bool:
        """Whether anything does."""
        return (self._vary and _vary(first) != _vary(second)) or bool(self.of(first, second))

    def of(self, first: RowResult, second: RowResult) -> list[str]:
        """What, besides that something varies."""
        poison = ["other poison"] if self._poison and _poisoned_apart(first, second) else []
        return [*self._data(first, second), *_balls(first, second), *poison]

    def _data(self, first: RowResult, second: RowResult) -> list[str]:
        one, other = first.settings.get("data") or {}, second.settings.get("data") or {}
        if not _asked(first, "clean") & _asked(second, "clean"):  # else the very same files, wherever they lie
            one, other = ({key: part[key] for key in part if key not in _COUNTS} for part in (one, other))
            if not same(one, other):
                return [f"other data ({'; '.join(_told_apart(one, other))})"]
        images = self._seen(first), self._seen(second)
        if None in images or images[0] == images[1]:
            return []
        sizes = [seen[0] for seen in images if seen is not None]
        return ["other test images" + (f" ({sizes[0]:,}; {sizes[1]:,})" if sizes[0] != sizes[1] else "")]

    def _seen(self, row: RowResult) -> tuple[int, str] | None:
        """How many test images and which; None before the first model has answered."""
        if id(row) not in self._images:
            outcomes = next(iter(row.outcomes.values()), None)
            if outcomes is None:
                self._images[id(row)] = None
            else:
                ids = b"" if outcomes.id is None else outcomes.id.tobytes()
                self._images[id(row)] = len(outcomes.label), hashlib.sha256(outcomes.label.tobytes() + ids).hexdigest()
        return self._images[id(row)]


def _poisoned_apart(first: RowResult, second: RowResult) -> bool:
    """Whether both are poisoned, and not in the same way."""
    one, other = (row.settings.get("poison") for row in (first, second))
    return bool(one and other) and not same(one, other)


def _balls(first: RowResult, second: RowResult) -> list[str]:
    """Attacks and bounds, where both rows have some."""
    reasons = []
    for kind, noun in (("attack", "attacks"), ("certify", "bounds")):
        one, other = (_parts(row, kind) for row in (first, second))
        if not one or not other or same(one, other):
            continue
        words = [joined(list(dict.fromkeys(map(_ball, parts)))) for parts in (one, other)]
        if words[0] != words[1]:
            reasons.append(f"{noun} with other norm or eps ({words[0]}; {words[1]})")
        else:
            reasons.append(f"other {noun} ({'; '.join(_told_apart(one, other))})")
    return reasons


def _parts(row: RowResult, kind: str) -> list[Mapping[str, Any]]:
    given = row.settings.get(kind) or []
    parts = [given] if isinstance(given, Mapping) else list(given)
    return sorted(parts, key=lambda part: (str(part.get("name")), str(part.get("norm")), str(part.get("eps"))))


def _ball(part: Mapping[str, Any]) -> str:
    if "eps" not in part:  # a threat model that is no ball
        return str(part.get("name", ""))
    return f"{part.get('norm', '')} eps {setting(part.get('eps'))}".strip()


def _told_apart(first: Any, second: Any) -> list[str]:
    """Two settings in words: their names where these differ, else what is different in them."""
    sides = [[first], [second]] if isinstance(first, Mapping) else [first, second]
    names = [joined([str(part.get("name", "")) for part in side]) for side in sides]
    if names[0] != names[1]:
        return names
    changes = [differing([[one], [other]]) for one, other in zip(*sides, strict=True)]
    return [
        ", ".join(f"{path} {setting(values[side][0])}" for change in changes for path, values in change.items())
        for side in (0, 1)
    ]


def _asked(row: RowResult, kind: str) -> set[str]:
    return {question.key for seed in row.planned for question in seed.cell.of(kind)}


def _vary(row: RowResult) -> str:
    return json.dumps(row.vary, sort_keys=True)


def _runs(group: Sequence[RowResult]) -> str:
    return joined(list(dict.fromkeys(row.run for row in group)))


def named(group: Sequence[RowResult]) -> str:
    """The labels of rows, a few of many."""
    names = [row.label for row in group]
    more = len(names) - _NAMED
    return joined([*names[:_NAMED], *([count(more, "more row")] if more > 0 else [])])
