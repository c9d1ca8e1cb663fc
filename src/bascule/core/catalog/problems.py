"""What pydantic refuses, as a `RequestError` in the words of a study file."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

import pydantic

from bascule.core.documented import meaning
from bascule.core.errors import RequestError, unknown
from bascule.core.text import count, quote

_MAPPING = "a mapping of settings"


def translate(cls: type, values: Mapping[str, Any], error: pydantic.ValidationError) -> RequestError:
    """The first problem pydantic found, what is too much before all others since they explain missing ones."""
    too_many = ("unexpected_keyword_argument", "extra_forbidden", "unexpected_positional_argument")
    problems = sorted(error.errors(), key=lambda p: p["type"] not in too_many)
    first = problems[0]
    kind, place = first["type"], tuple(map(str, first["loc"]))
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        fields = [field.name for field in dataclasses.fields(typing.cast(Any, cls))]
        return RequestError(unknown("key", place[-1], fields), place=place[:-1], key=place[-1])
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument") and len(place) == 1:
        return RequestError(f"the key {place[-1]!r} is missing {meaning(cls, place[-1])}".rstrip(), place=place[:-1])
    if kind == "value_error":
        return RequestError(str(first["ctx"]["error"]), place=place)
    # Several problems of one field may be those of a union's branches: the one that got furthest into the value fits.
    rivals = [
        (_kept(values, problem["loc"]), problem) for problem in problems if problem["loc"][:1] == first["loc"][:1]
    ]
    kept = max((kept for kept, _ in rivals), key=len)
    rule = _rule([problem for other, problem in rivals if other == kept])
    if _MAPPING in rule:
        rule = rule.replace(_MAPPING, _mapping(typing.get_type_hints(cls).get(str(first["loc"][0]))), 1)
    return RequestError(rule, place=_written(kept))


def _kept(value: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of pydantic's location that leads into `value`: without the names of a union's branches."""
    kept: list[int | str] = []
    for step in location:
        steps = value if isinstance(value, Mapping) else range(len(value)) if isinstance(value, tuple) else ()
        if step in steps:
            value = value[step]
            kept.append(step)
    return tuple(kept)


def _written(steps: tuple[int | str, ...]) -> tuple[str, ...]:
    """Keys of a place, entries of lists in brackets: ("milestones[1]",)."""
    keys: list[str] = []
    for step in steps:
        if isinstance(step, int) and keys:
            keys[-1] += f"[{step}]"
        else:
            keys.append(str(step))
    return tuple(keys)


def _rule(problems: list[Any]) -> str:
    """What is allowed instead of one given value, from the problems of all branches that could have taken it."""
    given = problems[0].get("input")
    words = [p["ctx"]["expected"].replace(" or ", ", ").split(",") for p in problems if p["type"] == "literal_error"]
    if words and isinstance(given, str):
        return unknown("value", given, [word.strip(" '") for branch in words for word in branch])
    # A value of the right type in the wrong range says more than the branches of another type.
    closer = [p for p in problems if p["type"] != "literal_error" and not p["type"].endswith("_type")]
    rules = [_plain(p["msg"]) for p in closer or problems]
    return f"{', or '.join(dict.fromkeys(rules))}; got {quote(given)}"


def _plain(rule: str) -> str:
    """Pydantic's words in those of a study file."""
    words = {
        "Input should be": "must be",
        "Field required": "needs more entries",
        "a valid tuple": "a list",
        "a valid boolean": "true or false",
        "a valid string": "text",
    }
    for theirs, ours in words.items():
        rule = rule.replace(theirs, ours)
    entries = re.fullmatch(r"(?:Tuple|List) should have (at \w+) (\d+) items? after validation, not (\d+)", rule)
    if entries:
        least_or_most, limit, given = entries.groups()
        return f"must be a list of {least_or_most} {count(int(limit), 'entry', 'entries')}, not {given}"
    return re.sub(r"an instance of (\w+)$", _MAPPING, rule)


def _mapping(hint: Any) -> str:
    """A mapping of settings that may stand in a field of this type, with its keys, and the names of others."""
    told = _MAPPING
    for number, cls in enumerate(_settings_in(hint)):
        fields = dataclasses.fields(cls)
        named = next((typing.get_args(typing.get_type_hints(cls)["name"]) for one in fields if one.name == "name"), ())
        if named and number:
            told += f", or of `name: {' | '.join(map(str, named))}`"
            continue
        told += f" ({', '.join(one.name for one in fields)}"
        told += ")" if any(map(_must_be_given, fields)) else "; {} for the default of each)"
    return told


def _settings_in(hint: Any) -> list[Any]:
    """The classes whose settings a field of this type may hold, also in a list or beside None."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [cls for part in typing.get_args(hint) for cls in _settings_in(part)]


def _must_be_given(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
