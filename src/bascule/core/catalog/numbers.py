"""Numbers as they are given: `"8/255"` and `"0.5 %"` where a field is a number, and those of NumPy and torch."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from bascule.core.text import number_said


def with_numbers(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a component's fields, with Python's numbers in place of others, and of texts that say one where a
    number is wanted."""
    fields = typing.cast(Any, cls).__pydantic_fields__  # with their types, wherever those were written
    plain = {key: plain_number(value) for key, value in values.items()}
    return {
        key: _numbers(fields[key].annotation, value) if key in fields and isinstance(value, (str, tuple)) else value
        for key, value in plain.items()
    }


def plain_number(value: Any) -> Any:
    """A number (or truth) of NumPy or torch as Python's own, also in tuples; what is something else stays as it is."""
    if isinstance(value, tuple):
        return tuple(map(plain_number, value)) if type(value) is tuple else value
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (RuntimeError, NotImplementedError):  # one without a value, on the device `meta`
        return value


def _numbers(hint: Any, value: Any) -> Any:
    branches = list(_branches(hint))
    if isinstance(value, str):
        number = number_said(value) if float in branches and str not in branches else None
        return value if number is None else number
    if isinstance(value, tuple):
        for branch in branches:
            inner = typing.get_args(branch) if typing.get_origin(branch) is tuple else ()
            if len(inner) == 2 and inner[1] is Ellipsis:
                return tuple(_numbers(inner[0], entry) for entry in value)
            if inner and len(inner) == len(value):
                return tuple(map(_numbers, inner, value))
    return value


def _branches(hint: Any) -> typing.Iterator[Any]:
    """What a value may be, without annotations."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        yield from _branches(typing.get_args(hint)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _branches(part)
    else:
        yield hint
