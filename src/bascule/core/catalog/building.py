"""Components from plain settings, and back."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic
from pydantic_core import core_schema

from bascule.core.catalog.component import belongs_to, is_named
from bascule.core.catalog.identity import check_code, code_of
from bascule.core.catalog.names import PACKAGES, is_built_in, load, meant_by, name_of, names
from bascule.core.errors import RequestError, unknown
from bascule.core.text import quote

T = TypeVar("T")


@dataclass(frozen=True)
class Of:
    """Annotation for a field that holds a component of a room: `trigger: Annotated[Trigger, Of("poison")]`.

    The field accepts an instance, a name, or a mapping with the key `name` and the component's own settings; None only
    where its type says so.
    """

    room: str
    many: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> Any:
        optional = type(None) in typing.get_args(source)

        def validate(value: Any, info: core_schema.ValidationInfo[Any]) -> Any:
            return None if value is None and optional else self._build(value, info.field_name or self.room)

        return core_schema.with_info_plain_validator_function(validate)

    def _build(self, value: Any, field: str) -> Any:
        if not self.many:
            return self._one(value, field)
        if not isinstance(value, (list, tuple)):
            value = [value]
        return tuple(self._one(item, f"{field}[{i}]") for i, item in enumerate(value))

    def _one(self, value: Any, *place: str) -> Any:
        try:
            return build(self.room, value)
        except RequestError as error:
            raise error.at(*place) from None


def build(room: str, spec: Any) -> Any:
    """A component of `room` from an instance, a name, or a mapping with `name` and settings.

    Raises:
        RequestError: Unknown name or key, or a value that is not allowed, with its place inside `spec`.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        if belongs_to(room, type(spec)):
            return spec
        raise RequestError(f"{_not_one_of(room, spec)}. {_listing(room)}")
    settings = {key: _tuples(value) for key, value in spec.items()}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise RequestError(f"expected a mapping with the key 'name', got {quote(dict(spec))}. {_listing(room)}")
    family, _, variant = name.partition(":")
    key = getattr(load(room, family), "variant", None) if variant and family in names(room) else None
    if key is not None:
        if key in settings:
            raise RequestError(f"{quote(name)} has this setting in its name already", place=(key,))
        name, settings = family, {key: variant, **settings}
    maker = load(room, name)
    if belongs_to(room, maker):
        if "code" in settings and not is_built_in(room, name):  # as `describe` writes it
            check_code(maker, name, settings.pop("code"))
        return construct(maker, settings)
    adopt = getattr(importlib.import_module(f"bascule.{PACKAGES[room]}.contract"), "adopt", None)
    if adopt is None or not callable(maker):
        raise RequestError(f"{quote(name)} is not a component of {room!r}")
    return adopt(name, settings)


def _not_one_of(room: str, given: Any) -> str:
    """What is wrong with something in place of a component of the room."""
    cls = given if isinstance(given, type) else type(given)
    kind = getattr(cls, "room", None)
    if kind is None:
        return f"expected a name or a mapping with the key 'name', got {quote(given)}"
    if kind != room:
        return f"expected one of the kind {room!r}, got {cls.__name__}, which is of the kind {kind!r}"
    if inspect.isabstract(cls):
        return f"{cls.__name__} is abstract, what all of the kind {room!r} have in common: give one of them"
    return f"{cls.__name__} is a class: give one that is made of it, {cls.__name__}(...), or its name"


def _listing(room: str) -> str:
    return f"Names: {', '.join(names(room))}."


def construct(cls: type[T], settings: Mapping[str, Any]) -> T:
    """`cls(**settings)` for settings that come from a file: lists become tuples, errors say the place.

    Raises:
        RequestError: Unknown key, missing key, wrong type, a value out of range, or a class that is not finished.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for key, value in settings.items():
        parts = _plain_components(hints.get(key))
        if isinstance(value, str) and value != "none" and any(map(_names_of, parts)):
            value = {"name": value}
        if parts and isinstance(value, Mapping):
            values[str(key)] = _part(parts, value, str(key))
        elif parts and isinstance(value, (list, tuple)):
            listed = enumerate(value)
            values[str(key)] = tuple(_part(parts, entry, f"{key}[{number}]") for number, entry in listed)
        else:
            values[str(key)] = _tuples(value)
    missing = getattr(cls, "__abstractmethods__", ())
    if missing:
        where = f"bascule/{PACKAGES[cls.room]}/contract.py"  # type: ignore[attr-defined]
        raise RequestError(f"{cls.__name__} lacks {', '.join(sorted(missing))}: see {where}")
    if dataclasses.is_dataclass(cls):  # before Python meets a key such as `self`
        fields = _fields(cls)
        for key in values:
            if key not in fields:
                raise RequestError(unknown("key", key, fields), key=key)
    return cls(**values)


def _part(classes: Sequence[type], value: Any, place: str) -> Any:
    """The plain component that these settings describe; what is no mapping is for the type to judge."""
    if not isinstance(value, Mapping):
        return _tuples(value)
    try:
        return construct_one_of(classes, value)
    except RequestError as error:
        raise error.at(place) from None


def construct_one_of(classes: Sequence[type], settings: Mapping[str, Any]) -> Any:
    """`construct` of the class that the settings name: the one whose field `name` may have that value.

    The first class is the one of settings without a name.

    Raises:
        RequestError: As `construct`, or no class has this name.
    """
    named = {name: cls for cls in classes for name in _names_of(cls)}
    name = settings.get("name")
    if not named:
        return construct(classes[0], settings)
    if name is None:
        _check_keys(classes[0], settings, {f"goes with `name: {other}`": cls for other, cls in named.items()})
        return construct(classes[0], settings)
    if not isinstance(name, str):
        raise RequestError(f"expected a name, got {quote(name)}", place=("name",))
    if name not in named:
        raise RequestError(unknown("name", name, named, hint=_meant_inside(classes, name)), place=("name",))
    others = {f"goes with `name: {other}`": cls for other, cls in named.items() if other != name}
    _check_keys(named[name], settings, {f"goes without `name: {name}`": classes[0], **others})
    return construct(named[name], settings)


def _check_keys(cls: type, settings: Mapping[str, Any], others: Mapping[str, type]) -> None:
    """Refuse a key that the class lacks and another one has, under whose name it goes.

    Raises:
        RequestError: There is such a key.
    """
    own = _fields(cls)
    for key in map(str, settings):
        hint = next((f"{quote(key)} {said}." for said, other in others.items() if key in _fields(other)), None)
        if key not in own and hint is not None:
            raise RequestError(unknown("key", key, own, hint=hint), key=key)


def _fields(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _meant_inside(classes: Sequence[type], name: str) -> str:
    """What is meant by a name that none of the classes has: that of a component which one of them holds."""
    hints = [pair for cls in classes for pair in typing.get_type_hints(cls, include_extras=True).items()]
    extras = [(key, extra) for key, hint in hints for extra in getattr(hint, "__metadata__", ())]
    held = [(key, extra.room) for key, extra in extras if isinstance(extra, Of)]
    for key, room in held:
        if name in names(room):
            return f"{name!r} is {room}/{name}, which goes under `{key}:`."
    said = ((key, room, meant_by(room, name)) for key, room in held)
    return next((f"{hint} What is of {room} goes under `{key}:`." for key, room, hint in said if hint), "")


def _names_of(cls: type) -> tuple[str, ...]:
    """What the field `name` of a plain component may be; empty where there is no such field."""
    hint = typing.get_type_hints(cls).get("name")
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _plain_components(hint: Any) -> list[type]:
    """The component classes that a field may hold, unless the field's value names one of a room."""
    if any(isinstance(extra, Of) for extra in getattr(hint, "__metadata__", ())):
        return []
    parts = typing.get_args(hint)
    options = (hint, *parts, *(inner for part in parts for inner in typing.get_args(part)))
    return [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]


def _tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def describe(value: Any) -> Any:
    """Plain JSON-ready settings of a component, nested ones included, defaults filled in.

    Fields that a class names in its `later` came after records had been written: their defaults are left out, so that
    the fingerprints of before stay.

    `build(room, describe(x)) == x` for every component `x` of a room.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        later = getattr(value, "later", ())
        known = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        fields = {
            field.name: describe(own)
            for field, own in known.items()
            if not (field.name in later and own == field.default)
        }
        if not is_named(value):
            return fields
        # A user's code is part of what makes the result; ours is covered by the versions.
        own = type(value).__module__.startswith("bascule.")
        return {"name": name_of(value), **fields, **({} if own else {"code": code_of(type(value), name_of(value))})}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"a component field holds {type(value).__name__}, which has no plain description")
