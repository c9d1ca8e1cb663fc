"""What `help` says of a class: its docstring, and below it each of its fields with the text that stands in the source.

They are read, as `bascule show` reads them, when somebody asks: importing takes no longer for it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from abc import ABCMeta
from functools import cache, cached_property
from pathlib import Path
from textwrap import indent
from typing import Any, TypeVar

from bascule.core.fields import FieldDoc, field_docs

T = TypeVar("T")


class Documented(str):
    """Stands in the place of a class's docstring, and is it."""

    _owner: type
    _settings: bool

    @classmethod
    def of(cls, owner: type, *, settings: bool) -> Documented:
        """The docstring of this class, and its fields: `settings`, or what a result holds."""
        made = cls(inspect.cleandoc(owner.__doc__ or ""))
        made._owner, made._settings = owner, settings
        return made

    def __get__(self, instance: object, owner: type) -> str:
        return self.whole

    def expandtabs(self, /, *args: Any, **kwargs: Any) -> str:
        """Of the whole: `help` goes by the descriptor and cleans what it finds (`inspect.cleandoc`)."""
        return self.whole.expandtabs(*args, **kwargs)

    @cached_property
    def whole(self) -> str:
        """With the fields."""
        told = [_told(field, self._settings) for field in _fields(self._owner)]
        heading = "Settings:" if self._settings else "Fields:"
        below = "\n".join([heading, *(indent(one, "    ") for one in told)]) if told else ""
        return "\n\n".join(filter(None, (str(self), below)))


def documented(cls: type[T]) -> type[T]:
    """Class decorator for a result: `help` tells what each of its fields holds."""
    cls.__doc__ = Documented.of(cls, settings=False)
    return cls


class Listed(ABCMeta):
    """The class of component classes, of which `help` and `dir` list no part of pydantic's machinery."""

    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if "pydantic" not in name]


def with_settings(cls: type) -> None:
    """Let `help` tell the settings of a component: what is allowed, the default, the meaning."""
    cls.__doc__ = Documented.of(cls, settings=True)
    # Not what others build on, nor one with a metaclass of its own: Python lets no class have both.
    if type(cls) is ABCMeta and not inspect.isabstract(cls):
        cls.__class__ = Listed


def meaning(cls: type, setting: str) -> str:
    """What a setting may be, and what it is for: `(number, at least 0): Radius of the ball`; "" where nobody says."""
    field = next((field for field in _fields(cls) if field.name == setting), None)
    return "" if field is None else f"({field.allowed}): {field.text}".rstrip(".: ")


def _told(field: FieldDoc, settings: bool) -> str:
    default = "" if field.default is None else f" (default {field.default})"
    allowed = field.allowed.replace("true or false", "True or False").replace("null", "None")
    first = f"{field.name}{default}: {allowed}" if settings else field.name
    return "\n".join(filter(None, (first, indent(field.text, "    "))))


def _fields(cls: type) -> list[FieldDoc]:
    """What the source says of the fields of a dataclass or named tuple, those it inherits among them, in their order.

    Fields whose class has no source, as one that was written in a notebook, are left out.
    """
    docs = {doc.name: doc for one in reversed(cls.__mro__) for doc in _own_fields(one)}
    names = [one.name for one in dataclasses.fields(cls) if one.init] if dataclasses.is_dataclass(cls) else list(docs)
    return [docs[name] for name in names if name in docs]


@cache
def _own_fields(cls: type) -> tuple[FieldDoc, ...]:
    if not (dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")):
        return ()
    try:
        tree = ast.parse(Path(inspect.getsourcefile(cls) or "").read_text(encoding="utf-8"))
        node = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == cls.__qualname__)
    except (OSError, TypeError, ValueError, SyntaxError, StopIteration):
        return ()
    source = cls.__module__ if cls.__module__.startswith("bascule.") else ""
    return tuple(field_docs(node, tree, source))
