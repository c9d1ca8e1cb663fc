"""The catalogue: components are found by scanning their room's folder and built from plain settings.

A component is a frozen, keyword-only dataclass whose fields are its whole configuration, so every field can change its
result. It is a `@component` class named after its file: `filter/spectral_signatures.py` holds `SpectralSignatures`,
the component `filter/spectral-signatures`. The other files of a room, such as `filter/run.py`, hold none. Other
packages add components through entry points in the group `bascule.<room>`. Names and descriptions are read from the
source text: listing imports nothing.

A component class may name one of its fields in a class variable `variant`: `torchvision:resnet18` then is the component
`torchvision` with that field set to `resnet18`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import core_schema

from bascule.core import readable
from bascule.core.errors import RequestError, unknown

ROOMS: dict[str, str] = {
    "data": "sources of images",
    "models": "architectures",
    "poison": "backdoor triggers",
    "attack": "evasion attacks",
    "certify": "certified bounds",
    "explain": "heat maps and frequency views",
    "train": "training objectives",
    "filter": "data defences",
    "scan": "model scanners",
    "repair": "model defences",
    "measure": "metrics",
}
"""Rooms that hold components, with what is in them."""

T = TypeVar("T")
_ROOT = Path(__file__).parents[1]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def component(cls: type[T]) -> type[T]:
    """Make `cls` a component: a frozen, keyword-only dataclass that checks its fields' types and ranges strictly.

    What it refuses is a `RequestError` wherever it is made.
    """
    config = pydantic.ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    made = pydantic_dataclass(cls, frozen=True, kw_only=True, config=config)
    check = made.__init__

    @functools.wraps(check)
    def init(self: Any, *positional: Any, **values: Any) -> None:
        try:
            check(self, *positional, **values)
        except pydantic.ValidationError as error:
            raise _translate(made, values, error) from None

    made.__init__ = init  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


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


# --- names -----------------------------------------------------------------------------------------------------------


def _plugins(room: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"bascule.{room}")}


def _check_room(room: str) -> None:
    if room not in ROOMS:
        raise RequestError(unknown("kind", room, ROOMS))


@functools.cache
def names(room: str) -> tuple[str, ...]:
    """Names of all components of a room, built in and from other packages, sorted. Imports none of them."""
    _check_room(room)
    own = {path.stem.replace("_", "-") for path in (_ROOT / room).glob("[!_]*.py") if _holds_component(path)}
    return tuple(sorted(own | set(_plugins(room))))


def _holds_component(path: Path) -> bool:
    """Whether the file has a `@component` class that is named after it."""
    classes = re.findall(r"^@(?:catalog\.)?component\nclass (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return path.stem.replace("_", "") in map(str.lower, classes)


def load(room: str, name: str) -> Any:
    """The component class called `name`, or for `module:attribute` (a module name or a .py file) that attribute.

    Raises:
        RequestError: No such name, or the user's module cannot be imported.
    """
    if ":" in name:
        return _load_foreign(name)
    if name not in names(room):
        raise RequestError(unknown(f"{room} name", name, names(room)))
    plugin = _plugins(room).get(name)
    if plugin is not None:
        try:
            return plugin.load()
        except Exception as error:
            problem = f"cannot load {room}/{name} from {plugin.value!r}: {type(error).__name__}: {error}"
            raise RequestError(problem) from error
    stem = name.replace("-", "_")
    module = importlib.import_module(f"bascule.{room}.{stem}")
    wanted = stem.replace("_", "")
    return next(value for key, value in vars(module).items() if key.lower() == wanted and inspect.isclass(value))


def _load_foreign(name: str) -> Any:
    where, _, attribute = name.rpartition(":")
    try:
        file = Path(where).expanduser().resolve() if where.endswith(".py") else None
        module = _import_file(file) if file else _import_module(where)
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(f"cannot import {where!r}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise RequestError(unknown(f"name in {where}", attribute, public))
    return getattr(module, attribute)


def _import_module(where: str) -> types.ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    return importlib.import_module(where)


@functools.cache
def _import_file(path: Path) -> types.ModuleType:
    if not path.is_file():
        raise RequestError(f"no file {str(path)!r}; give module:attribute or path/to/file.py:attribute")
    # Named after its place: two users' `nets.py` must not answer for each other.
    name = f"bascule_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# --- building and describing -----------------------------------------------------------------------------------------


def build(room: str, spec: Any) -> Any:
    """A component of `room` from an instance, a name, or a mapping with `name` and settings.

    Raises:
        RequestError: Unknown name or key, or a value that is not allowed, with its place inside `spec`.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        if not isinstance(spec, type) and getattr(spec, "room", None) == room:
            return spec
        raise RequestError(f"expected a name or a mapping with the key 'name', got {spec!r}. {_listing(room)}")
    settings = {key: _tuples(value) for key, value in spec.items()}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise RequestError(f"expected a mapping with the key 'name', got {dict(spec)!r}. {_listing(room)}")
    family, _, variant = name.partition(":")
    key = getattr(load(room, family), "variant", None) if variant and family in names(room) else None
    if key is not None:
        if key in settings:
            raise RequestError(f"{name!r} has this setting in its name already", place=(key,))
        name, settings = family, {key: variant, **settings}
    found = load(room, name)
    if isinstance(found, type) and getattr(found, "room", None) == room:
        if ":" in name:
            found.catalogue_name = name  # type: ignore[attr-defined]
            if settings.pop("code", code_of(found, name)) != code_of(found, name):  # as `describe` writes it
                raise RequestError(f"{name} is not what this was made with (its code changed)")
        return construct(found, settings)
    adopt = getattr(importlib.import_module(f"bascule.{room}"), "adopt", None)
    if adopt is None or not callable(found):
        raise RequestError(f"{name!r} is not a component of {room!r}")
    return adopt(name, settings)


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
        part = _plain_component(hints.get(key))
        if part is not None and isinstance(value, Mapping):
            try:
                values[str(key)] = construct(part, value)
            except RequestError as error:
                raise error.at(str(key)) from None
        else:
            values[str(key)] = _tuples(value)
    missing = getattr(cls, "__abstractmethods__", ())
    if missing:
        raise RequestError(f"{cls.__name__} lacks {', '.join(sorted(missing))}: see bascule/{cls.room}/__init__.py")  # type: ignore[attr-defined]
    return cls(**values)


def _plain_component(hint: Any) -> type | None:
    """The component class that a field holds, unless the field's value names one of a room."""
    if any(isinstance(extra, Of) for extra in getattr(hint, "__metadata__", ())):
        return None
    options = (hint, *typing.get_args(hint))
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _translate(cls: type, values: Mapping[str, Any], error: pydantic.ValidationError) -> RequestError:
    """The first problem pydantic found, what is too much before all others since they explain missing ones."""
    too_many = ("unexpected_keyword_argument", "extra_forbidden", "unexpected_positional_argument")
    problems = sorted(error.errors(), key=lambda p: p["type"] not in too_many)
    first = problems[0]
    kind, place = first["type"], tuple(map(str, first["loc"]))
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        fields = [field.name for field in dataclasses.fields(typing.cast(Any, cls))]
        return RequestError(unknown("key", place[-1], fields), place=place[:-1], key=place[-1])
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument") and len(place) == 1:
        return RequestError(f"the key {place[-1]!r} is missing", place=place[:-1])
    if kind == "value_error":
        return RequestError(str(first["ctx"]["error"]), place=place)
    # Several problems of one field may be those of a union's branches: the one that got furthest into the value fits.
    rivals = [
        (_kept(values, problem["loc"]), problem) for problem in problems if problem["loc"][:1] == first["loc"][:1]
    ]
    kept = max((kept for kept, _ in rivals), key=len)
    return RequestError(_rule([problem for other, problem in rivals if other == kept]), place=_written(kept))


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
    return f"{', or '.join(dict.fromkeys(rules))}; got {given!r}"


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
    return re.sub(r"an instance of (\w+)$", "a mapping of settings", rule)


def name_of(instance: object) -> str:
    """The catalogue name that `instance` was built from."""
    given = getattr(instance, "catalogue_name", None)
    if isinstance(given, str):
        return given
    module = type(instance).__module__
    parts = module.split(".")
    if parts[0] == "bascule" and len(parts) == 3:
        return parts[2].replace("_", "-")
    return f"{module}:{type(instance).__qualname__}"


def code_of(thing: Any, name: str) -> str:
    """SHA-256 of the file that defines a user's class or function; empty where there is no file.

    Raises:
        RequestError: It is neither a class nor a function written in Python.
    """
    try:
        source = inspect.getsourcefile(thing)
    except TypeError as error:
        raise RequestError(f"{name} is neither a function nor a class whose source can be read") from error
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def is_named(instance: object) -> bool:
    """Whether `instance` belongs to a room, so that its description needs a name."""
    return getattr(type(instance), "room", None) is not None


def describe(value: Any) -> Any:
    """Plain JSON-ready settings of a component, nested ones included, defaults filled in.

    `build(room, describe(x)) == x` for every component `x` of a room.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
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


# --- documentation, read from the source text ------------------------------------------------------------------------


@dataclass(frozen=True)
class FieldDoc:
    """One setting of a component, as written in its source."""

    name: str
    type: str
    default: str | None
    text: str
    allowed: str
    """Type and range in words."""
    shown: str | None
    """The default as in a study file; None where there is none."""


@dataclass(frozen=True)
class Documentation:
    """What `bascule show` prints of a component."""

    summary: str
    text: str
    fields: tuple[FieldDoc, ...]


def documentation(room: str, name: str) -> Documentation:
    """Docstring and settings of a component, without importing it when it is one of ours.

    Raises:
        RequestError: No such name; or `module:attribute` is no component of the room.
    """
    _check_room(room)
    family = name.partition(":")[0]
    name = family if family in names(room) else name
    if name not in names(room) and ":" not in name:
        raise RequestError(unknown(f"{room} name", name, names(room)))
    path, wanted = _ROOT / room / f"{name.replace('-', '_')}.py", name.replace("-", "").lower()
    if name in _plugins(room) or ":" in name:
        found = load(room, name)
        if not isinstance(found, type) or getattr(found, "room", None) != room:
            raise RequestError(f"{name!r} is not a component of {room!r}, so that it has no settings to show")
        path, wanted = Path(inspect.getsourcefile(found) or ""), found.__name__.lower()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.lower() == wanted)
    base = ast.parse((_ROOT / room / "__init__.py").read_text(encoding="utf-8"))
    bases = {ast.unparse(b).rpartition(".")[2] for b in own.bases}
    inherited = [node for node in base.body if isinstance(node, ast.ClassDef) and node.name in bases]
    text = inspect.cleandoc(ast.get_docstring(own) or ast.get_docstring(tree) or "")
    nodes = [*((node, base) for node in inherited), (own, tree)]
    fields = {doc.name: doc for node, module in nodes for doc in _field_docs(node, module)}
    return Documentation(_first_sentence(text), text, tuple(fields.values()))


def _first_sentence(text: str) -> str:
    """On one line; "et al. 2018" does not end it."""
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(text.partition("\n\n")[0].split()))[0]


def _field_docs(node: ast.ClassDef, module: ast.Module) -> list[FieldDoc]:
    docs = []
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or "ClassVar" in ast.unparse(item.annotation):
            continue
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = inspect.cleandoc(str(following.value.value))
        match item.value:
            case ast.Call(keywords=[ast.keyword(arg="default_factory", value=factory)]):
                default: ast.expr | None = ast.Call(func=factory, args=[], keywords=[])
            case value:
                default = value
        allowed = readable.allowed(item.annotation, module)
        written = None if default is None else "{}" if allowed.startswith("mapping") else readable.shown(default)
        docs.append(
            FieldDoc(
                name=ast.unparse(item.target),
                type=ast.unparse(item.annotation),
                default=None if default is None else ast.unparse(default),
                text=text,
                allowed=allowed,
                shown=written,
            )
        )
    return docs


def contract(room: str) -> Callable[[type[T]], type[T]]:
    """Class decorator for the abstract class that states a room's contract; it marks its subclasses as named."""

    def mark(cls: type[T]) -> type[T]:
        cls.room = room  # type: ignore[attr-defined]
        return cls

    return mark
