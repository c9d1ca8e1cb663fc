"""The identity of users' code: what it does, wherever it lies and however it is written.

| where it comes from | identity |
|---|---|
| a file or module of one's own | `ast1:` and the digest of its syntax tree and of the local modules it imports |
| a distribution installed from an index | `dist1:NAME==VERSION` |
| a distribution installed from a folder, or found outside the installed packages | both, joined by `+` |
| a notebook, a prompt | `code1:` and a digest of the compiled class or function alone |

Records of earlier versions hold the SHA-256 of the file's bytes, without a prefix; it is good as long as the bytes are
the same.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import types
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from bascule.core.catalog.importing import code_of_place, place_of
from bascule.core.catalog.plugins import Plugin, about, distribution_of, is_from_index
from bascule.core.catalog.sources import Code, code_at, is_installed
from bascule.core.errors import RequestError

_LOADED: weakref.WeakKeyDictionary[Any, tuple[str, str]] = weakref.WeakKeyDictionary()
"""Classes and functions, with the name each was last loaded by and its identity then."""
_RECALLED: dict[str, str] = {}
"""Codes that a record holds, by name."""
_NOTED: ContextVar[list[str] | None] = ContextVar("noted", default=None)


def is_foreign(name: str) -> bool:
    """Whether a catalogue name leads to code of somebody's own: `file.py:attribute`, `module:attribute`.

    A variant of one of our components (`torchvision:resnet18`) has that form too: ask `names` first.
    """
    return ":" in name


def loaded(thing: Any, name: str, plugin: Plugin | None = None) -> None:
    """Remember what a class or function was loaded by, and its identity now that it is imported.

    A file that is changed later, while a study runs, is not what made the study's models.
    """
    if isinstance(thing, (type, types.FunctionType)) and not _is_ours(thing):
        before = f"{thing.__module__}:{thing.__qualname__}"
        if plugin is not None and _recalled(thing, before):
            name, plugin = before, None  # what records of earlier versions call it
        code = code_named(name) if plugin is None else code_of_plugin(plugin)
        if code is not None:
            _LOADED[thing] = (name, code)
        else:
            _LOADED.pop(thing, None)


def loaded_as(cls: type) -> str | None:
    """The name that a class was last loaded by."""
    known = _LOADED.get(cls)
    return known and known[0]


def _is_ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "bascule"


# --- identity --------------------------------------------------------------------------------------------------------


def code_of(thing: Any, name: str) -> str:
    """The identity of a user's class or function, which was loaded by this name.

    Raises:
        RequestError: It is neither a class nor a function, or is built into Python.
    """
    old = _recalled(thing, name)
    if old is not None:
        return old
    known = _LOADED.get(thing) if isinstance(thing, (type, types.FunctionType)) else None
    if known is not None and known[0] == name:
        return known[1]
    return _code_from_thing(thing, name)


def has_code(thing: Any, name: str, code: str) -> bool:
    """Whether `code`, from a record, is the identity of this class or function."""
    return code == code_of(thing, name) or (":" not in code and code == _bytes_of(thing))


def code_named(name: str) -> str | None:
    """The identity of what `file.py:attribute` or `module:attribute` leads to, found without importing anything.

    None where there is no file to read.
    """
    where = name.rpartition(":")[0]
    code = code_of_place(where) if where else None
    return None if code is None else _identity(code, where)


def codes_named(name: str) -> frozenset[str]:
    """`code_named`, and what records of earlier versions hold for the same code; empty where there is no file."""
    code, place = code_named(name), place_of(name.rpartition(":")[0])
    if code is None or place is None:
        return frozenset()
    return frozenset({code, hashlib.sha256(place.read_bytes()).hexdigest()})


def _identity(code: Code, module: str) -> str:
    if not is_installed(code.place) or module.endswith(".py"):
        return f"ast1:{code.digest}"
    dist = distribution_of(module)
    return f"ast1:{code.digest}" if dist is None else _of_distribution(about(dist), code, is_from_index(dist))


def code_of_plugin(plugin: Plugin) -> str | None:
    """The identity of what a distribution announces, found without importing anything."""
    dist = plugin.entry.dist
    code = code_of_place(plugin.entry.module, dist)
    told = code is None or (is_installed(code.place) and dist is not None and is_from_index(dist))
    return _of_distribution(plugin.origin, code, told)


def _of_distribution(origin: str, code: Code | None, version_tells: bool) -> str:
    named = "dist1:" + origin.replace(" ", "==")
    return named if version_tells or code is None else f"{named}+ast1:{code.digest}"


def _code_from_thing(thing: Any, name: str) -> str:
    """Of what was not loaded by name, or can no longer be found by it."""
    module = sys.modules.get(str(getattr(thing, "__module__", None)))
    try:
        file = inspect.getsourcefile(thing) or getattr(module, "__file__", None)
    except (TypeError, OSError):
        file = getattr(module, "__file__", None) if inspect.isroutine(thing) or inspect.isclass(thing) else None
        if file is None and not (isinstance(thing, (type, types.FunctionType)) and _compiled(thing)):
            raise RequestError(f"{name} is neither a function nor a class whose source can be read") from None
    if file is None or not Path(file).is_file():
        return f"code1:{hashlib.sha256(repr(_compiled(thing)).encode('utf-8', 'backslashreplace')).hexdigest()}"
    code = None if module is None else code_of_place(module.__name__)
    if code is not None and module is not None and Path(file).resolve() in code.files:
        return _identity(code, module.__name__)
    return f"ast1:{code_at([Path(file)], beside=Path(file).resolve().parent).digest}"


def _compiled(thing: Any) -> list[Any]:
    """What a class or function without a file does, as far as it is compiled with it."""
    parts = sorted(vars(thing).items()) if isinstance(thing, type) else [("", thing)]
    plain = [(name, getattr(part, "__func__", getattr(part, "fget", part))) for name, part in parts]
    functions = [(name, inspect.unwrap(part)) for name, part in plain if isinstance(part, types.FunctionType)]
    return [(name, _words(part.__code__)) for name, part in functions if isinstance(part, types.FunctionType)]


def _words(code: types.CodeType) -> list[Any]:
    constants = [_words(part) if isinstance(part, types.CodeType) else _constant(part) for part in code.co_consts]
    return [code.co_code, constants, code.co_names, code.co_varnames]


def _constant(value: Any) -> Any:
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


# --- origin ----------------------------------------------------------------------------------------------------------


def origin_of_place(where: str) -> str:
    """Where `module` or `path/to/file.py` lies: in a distribution, or in which file; nothing is imported."""
    file = place_of(where)
    if file is None:
        return f"{_named(where)} (not found)"
    dist = distribution_of(where) if is_installed(file) and not where.endswith(".py") else None
    return _named(str(file)) if dist is None else about(dist)


def origin_of_code(name: str, code: str) -> str:
    """Where a part came from that a record names with this identity."""
    told = re.fullmatch(r"dist1:(.+?)==(.+?)(?:\+ast1:\w+)?", code)
    if told:
        return " ".join(told.groups())
    where = name.rpartition(":")[0]
    return _named(where or name)


def _named(place: str) -> str:
    """`file nets.py`, `module own.nets`; what a terminal would not print is escaped."""
    kind = "file" if place.endswith(".py") else "module"
    return f"{kind} {place if place.isprintable() else repr(place)}"


# --- what records hold -----------------------------------------------------------------------------------------------


def _bytes_of(thing: Any) -> str | None:
    """SHA-256 of the file that defines a class or function, the identity in records of earlier versions."""
    try:
        source = inspect.getsourcefile(thing)
        return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    except (TypeError, OSError):
        return None


def _recalled(thing: Any, name: str) -> str | None:
    """The identity that an earlier version recorded, if it says everything: the file imports no other local one."""
    old = _RECALLED.get(name)
    if old is None or old != _bytes_of(thing):
        return None
    file = Path(inspect.getsourcefile(thing) or "").resolve()
    return old if file.is_file() and len(code_at([file], beside=file.parent).files) == 1 else None


def codes_in(settings: Any) -> dict[str, str]:
    """The names of users' parts in settings as a record holds them, with their identity then."""
    if isinstance(settings, Mapping):
        name, code = settings.get("name"), settings.get("code")
        own = {name: code} if isinstance(name, str) and isinstance(code, str) else {}
        return own | {key: value for part in settings.values() for key, value in codes_in(part).items()}
    if isinstance(settings, (list, tuple)):
        return {key: value for part in settings for key, value in codes_in(part).items()}
    return {}


def recall(settings: Any) -> bool:
    """Keep the identities that a record of an earlier version holds, where they still say everything.

    A file that imports no other local one and has the same bytes keeps the identity it had, and the models that were
    made with it keep theirs.

    Returns:
        Whether there is any.
    """
    old = {name: code for name, code in codes_in(settings).items() if ":" not in code}
    _RECALLED.update(old)
    return bool(old)


# --- what has changed ------------------------------------------------------------------------------------------------


@contextmanager
def changes_noted(noted: list[str]) -> Iterator[None]:
    """Inside the block, a part whose code is not what a record says is built all the same, and its name added here."""
    token = _NOTED.set(noted)
    try:
        yield
    finally:
        _NOTED.reset(token)


def check_code(thing: Any, name: str, code: Any, *, what: str = "what") -> None:
    """The class or function must be the one that `code`, from a record, speaks of.

    Raises:
        RequestError: It is another, and changes are not just noted.
    """
    if isinstance(code, str) and has_code(thing, name, code):
        return
    noted = _NOTED.get()
    if noted is None:
        raise RequestError(f"{name} is not {what} this was made with (its code changed)")
    noted += [name] if name not in noted else []
