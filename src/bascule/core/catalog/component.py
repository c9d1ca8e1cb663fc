"""What a component is: a frozen, keyword-only dataclass, checked strictly, that may belong to a room."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from bascule.core.catalog.numbers import with_numbers
from bascule.core.catalog.problems import translate
from bascule.core.documented import with_settings

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def component(cls: type[T]) -> type[T]:
    """Make `cls` a component: a frozen, keyword-only dataclass that checks its fields' types and ranges strictly.

    What it refuses is a `RequestError` wherever it is made. Where a field is a number, a text that says one as study
    files do is taken for it: `Pgd(eps="8/255")`, though type checkers want a float.
    """
    config = pydantic.ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    made = pydantic_dataclass(cls, frozen=True, kw_only=True, config=config)
    check = made.__init__

    @functools.wraps(check)
    def init(self: Any, /, *positional: Any, **values: Any) -> None:
        try:
            check(self, *positional, **with_numbers(made, values))
        except pydantic.ValidationError as error:
            raise translate(made, values, error) from None

    del init.__wrapped__  # whose parameters have the names of pydantic's machinery
    made.__init__ = init  # type: ignore[method-assign, assignment]
    with_settings(made)
    return made  # type: ignore[return-value]


def contract(room: str) -> Callable[[type[T]], type[T]]:
    """Class decorator for the abstract class that states a room's contract; it marks its subclasses as named."""

    def mark(cls: type[T]) -> type[T]:
        cls.room = room  # type: ignore[attr-defined]
        return cls

    return mark


def belongs_to(room: str, thing: object) -> bool:
    """Whether `thing` is a class under the contract of `room`."""
    return isinstance(thing, type) and getattr(thing, "room", None) == room


def is_named(instance: object) -> bool:
    """Whether `instance` belongs to a room, so that its description needs a name."""
    return getattr(type(instance), "room", None) is not None
