"""Where the settings of rows differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def same(first: Any, second: Any) -> bool:
    """Whether two settings are the same; one that only one of them has does not count.

    An older record lacks the settings that came later, and a setting comes with a default that changes nothing.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return all(same(first[key], second[key]) for key in first.keys() & second.keys())
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


Values = Sequence[Any]
"""What a setting is in the rows of one run, or in one row."""


def differing(sides: Sequence[Values], path: str = "") -> dict[str, list[list[Any]]]:
    """The settings that are not the same in all `sides`: by their path, each different value of each side.

    It goes into components that have the same name everywhere; others stand there whole. None and a setting that is
    missing are the same, and so are missing and empty ones.
    """
    distinct = [list({_key(value): value for value in side}.values()) for side in sides]
    if len({frozenset(map(_key, side)) for side in distinct}) == 1:
        return {}
    parts = [value for side in distinct for value in side]
    if not all(isinstance(part, Mapping) for part in parts) or len({str(part.get("name")) for part in parts}) > 1:
        return {path: distinct}
    differences: dict[str, list[list[Any]]] = {}
    for key in dict.fromkeys(key for part in parts for key in part):
        values = [[part.get(key) for part in side] for side in distinct]
        differences |= differing(values, f"{path}.{key}" if path else key)
    return differences


def _key(value: Any) -> str:
    return json.dumps(value or None, sort_keys=True)
