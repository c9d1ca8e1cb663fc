"""Changes to a study that do not stand in its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.core.errors import RequestError, placed, unknown
from bascule.core.text import LONGEST_NAME, quote
from bascule.plan.document import parse_value
from bascule.plan.origins import Layer, Origin, nested
from bascule.plan.schema import KEYS

_IN_FILE = ("scales",)
"""Keys of a study that only its file has: a scale is applied before anything is changed."""
_CHANGED = tuple(key for key in KEYS if key not in _IN_FILE)
LISTS = ("measure", "attack", "certify", "curve", "explain")
"""Lists that an override may add to."""


@dataclass(frozen=True, kw_only=True)
class Override:
    """One value instead of the study's, or added to one of its lists.

    The path is one inside a row's settings (`train.epochs`, applied to every row, and instead of what varies there),
    `rows.NAME.path` for one row, `vary.path`, or a key of the study such as `seeds`.
    """

    path: str
    value: Any
    origin: str
    """What errors name it by: the option that it was given with."""
    adds: bool = False
    """Whether what is not in the list yet is added to it."""
    written: str = ""
    """The text it was parsed from, if any."""

    @property
    def text(self) -> str:
        """What the record keeps: `path=value` or `path+=value`, which `parse_override` reads."""
        return self.written or f"{self.path}{'+' if self.adds else ''}={json.dumps(self.value, default=str)}"


def parse_override(text: str, option: str = "") -> Override:
    """The override written as `path=value` or `path+=value`, where values are written as in a study file.

    Args:
        text: For example `train.epochs=3`.
        option: What stands before the path when errors name the override, for example the option of a command.

    Raises:
        RequestError: Not of this form, or the value cannot be read.
    """
    path, equals, value = text.partition("=")
    adds = path.rstrip().endswith("+")
    path = path.strip().removesuffix("+").rstrip().removeprefix("base.")
    if not equals or not path:
        raise RequestError(f"{option} {quote(text)}: expected key=value, for example train.epochs=3".lstrip())
    if len(path) > LONGEST_NAME:
        raise RequestError(f"{option} {quote(path)}: a key is at most {LONGEST_NAME} characters long".lstrip())
    origin = f"{option} {path}{'+=' if adds else ''}".lstrip()
    with placed(origin):
        return Override(path=path, value=parse_value(value), origin=origin, adds=adds, written=text)


@dataclass(frozen=True, kw_only=True)
class RowChanges:
    """What overrides change in the settings of rows."""

    everywhere: Mapping[str, Layer]
    """Settings of all rows, by path."""
    by_row: Mapping[str, Mapping[str, Layer]]
    """Settings of one row, by path; they go before those of all rows."""
    added: Sequence[Override]

    def replace_varied(self, path: str) -> bool:
        """Whether what varies at `path` is settled."""
        return any(path == given or path.startswith(f"{given}.") for given in self.everywhere)

    def apply(self, row: str, settings: Layer, varied: Mapping[str, Layer]) -> Layer:
        """The settings of a row with what varies and what is changed.

        A change inside of what varies goes on top of it, but where it varies to nothing that stays nothing.
        """
        changes = {**self.everywhere, **self.by_row.get(row, {})}
        around = {path: next((outer for outer in varied if path.startswith(f"{outer}.")), None) for path in changes}
        for layer in (*(changes[path] for path in changes if around[path] is None), *varied.values()):
            settings = settings.merge(layer)
        for path, outer in around.items():
            if outer is not None and settings.value(*outer.split(".")) not in (None, "none"):
                settings = settings.merge(changes[path])
        for override in self.added:
            settings = settings.add(override.path, _entries(override), Origin(label=override.origin, said=1))
        return settings


def apply_overrides(study: Layer, overrides: Sequence[Override]) -> tuple[Layer, RowChanges]:
    """The study with the overrides of its own keys, and the changes for its rows.

    Raises:
        RequestError: No such row, key or list.
    """
    with study.trace_errors():
        rows, vary = study.mapping("rows"), study.mapping("vary")
    everywhere: dict[str, Layer] = {}
    by_row: dict[str, dict[str, Layer]] = {}
    added: list[Override] = []
    for override in sorted(overrides, key=lambda override: override.adds):  # additions are made to lists as they end up
        path, value, origin = override.path, override.value, Origin(label=override.origin)
        head, _, rest = path.partition(".")
        with placed(override.origin):
            if override.adds and path not in LISTS:
                raise RequestError(unknown("list", path, LISTS))
            if head in _IN_FILE:
                raise RequestError(
                    f"the {head} of a study stand in its file alone: choose one with `scale`, and change single "
                    f"settings (train.epochs=3) or other keys of the study: {', '.join(sorted(_CHANGED))}"
                )
            if override.adds and path in KEYS:
                study = study.add(path, _entries(override), Origin(label=override.origin, said=1))
            elif override.adds:
                added.append(override)
            elif head == "rows":
                row, inner = _split_row(rest, list(rows))
                by_row.setdefault(row, {})[inner] = Layer.of(nested(inner, value), origin)
            elif head == "vary" and rest:
                if value is None and rest not in vary:
                    raise RequestError(unknown("path that varies", rest, vary))
                study = study.without(head, rest).merge(
                    Layer.of({head: {rest: value}}, Origin(label=override.origin, said=2))
                )
            elif path in KEYS:
                study = study.put(path, value, Origin(label=override.origin, said=1))
            elif head in KEYS:
                raise RequestError(unknown("key", path, _CHANGED))
            else:
                everywhere[path] = Layer.of(nested(path, value), origin)
    return study, RowChanges(everywhere=everywhere, by_row=by_row, added=added)


def _split_row(path: str, rows: Sequence[str]) -> tuple[str, str]:
    """The row's name, which may have dots in it, and the path of a setting."""
    row = next((row for row in rows if path.startswith(f"{row}.")), None)
    if row is not None:
        return row, path[len(row) + 1 :]
    if not path or path in rows:
        raise RequestError(f"expected a setting of a row, for example rows.{path or 'NAME'}.train.epochs")
    raise RequestError(unknown("row", path, rows))


def _entries(override: Override) -> list[Any]:
    return list(override.value) if isinstance(override.value, list) else [override.value]
