"""Names of components, and the classes behind them: found by scanning the rooms' folders, without importing them."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import types
import weakref
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

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

_ROOT = Path(__file__).parents[2]
_ASKED_FOR: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
"""Users' classes, with the name `module:attribute` that each was last loaded by."""


@functools.cache
def names(room: str) -> tuple[str, ...]:
    """Names of all components of a room, built in and from other packages, sorted. Imports none of them."""
    if room not in ROOMS:
        raise RequestError(unknown("kind", room, ROOMS))
    own = {path.stem.replace("_", "-") for path in (_ROOT / room).glob("[!_]*.py") if _holds_component(path)}
    return tuple(sorted(own | set(_plugins(room))))


def _holds_component(path: Path) -> bool:
    """Whether the file has a `@component` class that is named after it."""
    classes = re.findall(r"^@(?:catalog\.)?component\nclass (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return path.stem.replace("_", "") in map(str.lower, classes)


def _plugins(room: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"bascule.{room}")}


def source_of(room: str, name: str) -> Path | None:
    """The file of one of our own components; None for those of other packages and for `module:attribute`."""
    if ":" in name or name in _plugins(room):
        return None
    return _ROOT / room / f"{name.replace('-', '_')}.py"


def contract_source(room: str) -> Path:
    """The file that states the room's contract."""
    return _ROOT / room / "__init__.py"


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
    wanted = getattr(module, attribute)
    if isinstance(wanted, type):
        _ASKED_FOR[wanted] = name
    return wanted


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


def name_of(instance: object) -> str:
    """The catalogue name that `instance` was built from.

    One of our classes that stands for a user's function has that function's name in `catalogue_name`.
    """
    function = getattr(instance, "catalogue_name", None)
    if isinstance(function, str):
        return function
    cls = type(instance)
    parts = cls.__module__.split(".")
    if parts[0] == "bascule" and len(parts) == 3:
        return parts[2].replace("_", "-")
    return _ASKED_FOR.get(cls, f"{cls.__module__}:{cls.__qualname__}")


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
