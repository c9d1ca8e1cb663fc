"""Names of components, and the classes behind them: found by scanning the rooms' folders, without importing them."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bascule.core.catalog.identity as identity
from bascule.core.catalog.consent import check_consent
from bascule.core.catalog.identity import origin_of_place
from bascule.core.catalog.importing import import_place
from bascule.core.catalog.plugins import Plugin, Plugins, plugins
from bascule.core.catalog.terms import plain, term_for
from bascule.core.errors import RequestError, say_where, unknown
from bascule.core.text import joined

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
    "detect": "test-time detectors",
    "repair": "model defences",
    "measure": "metrics",
}
"""Rooms that hold components, with what is in them."""

PACKAGES: dict[str, str] = {
    "data": "data",
    "models": "models",
    "poison": "triggers",
    "attack": "attacks",
    "certify": "certifiers",
    "explain": "explanations",
    "train": "training",
    "filter": "filters",
    "scan": "scanners",
    "detect": "detectors",
    "repair": "repairs",
    "measure": "metrics",
}
"""The package of each room: a study says what is done, `attack`; Python what is there, `bascule.attacks`."""

_SPOKEN: dict[str, str] = {
    "data": "dataset image picture source",
    "models": "network net architecture",
    "poison": "backdoor trojan poisoning",
    "attack": "adversarial adversary evasion perturbation",
    "certify": "certificate certification bound verify verification",
    "explain": "attribution heatmap visualisation visualization",
    "train": "objective loss trainer hardening defence defense",
    "filter": "defence defense",
    "scan": "defence defense",
    "detect": "detection defence defense",
    "repair": "defence defense mitigation",
    "measure": "measurement score",
}
"""What else people call a kind, beside its package: one of them, or several."""

BUILT_IN = "built-in"
"""Where our own components come from."""
_ROOT = Path(__file__).parents[2]


def _folder(room: str) -> Path:
    return _ROOT / PACKAGES[room]


def unknown_kind(kind: str, *, besides: Sequence[str] = ()) -> str:
    """Text for a word that is no kind of component: which kinds people mean by it, where it is known, and all kinds.

    Args:
        kind: As somebody wrote it.
        besides: What may also be asked for in this place.
    """
    return unknown("kind", kind, [*ROOMS, *besides], hint=kind_hint(kind))


def kind_hint(word: str) -> str:
    """What to say to somebody who takes a word for a kind that is called otherwise here; "" of most words."""
    meant = [f"{room!r} ({ROOMS[room]})" for room in ROOMS if plain(word) in _spoken(room)]
    term = term_for("", word)
    return f"Did you mean {joined(meant, 'or')}?" if meant else "" if term is None else term.sentence(word)


@functools.cache
def _spoken(room: str) -> frozenset[str]:
    """What people call a kind, one or several of it."""
    words = {PACKAGES[room].removesuffix("s"), *_SPOKEN[room].split()}
    return frozenset(form for word in words for form in (word, f"{word}s"))


@functools.cache
def names(room: str) -> tuple[str, ...]:
    """Names of all components of a room, built in and from other packages, sorted. Imports none of them."""
    if room not in ROOMS:
        raise RequestError(unknown_kind(room))
    own = {path.stem.replace("_", "-") for path in _folder(room).glob("[!_]*.py") if _holds_component(path)}
    return tuple(sorted(own | plugins_of(room).by_name.keys()))


@functools.cache
def named_settings(room: str) -> Mapping[str, str]:
    """Settings that stand in place of a component under a name of their own: `poison: {name: given, ...}`.

    Returns:
        The class of each, by name. No component is called so, and nothing is imported.
    """
    found: dict[str, str] = {}
    for path in _folder(room).glob("[!_]*.py"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^    name: Literal\[\"([\w-]+)\"\]", text, re.MULTILINE):
            if name == path.stem.replace("_", "-"):
                found[name] = re.findall(r"^@component\nclass (\w+)", text, re.MULTILINE)[0]
    return found


def unknown_name(room: str, name: str) -> str:
    """Text for a name that a room has not, also where other benchmarks call something so: what was given and meant."""
    return unknown(f"{room} name", name, names(room), hint=meant_by(room, name))


def meant_by(room: str, name: str) -> str:
    """What is meant by a name that a room has not, in a sentence; "" where nobody knows."""
    same = [own for own in names(room) if plain(own) == plain(name)]
    if same:
        return f"Did you mean {same[0]!r}?"
    if name in named_settings(room):
        return f"{name!r} stands in place of one: `{room}: {{name: {name}, ...}}`."
    term = term_for(room, name)
    if term is not None and any(part.startswith(f"{room}/") for part in term.here):
        return term.sentence(name)
    elsewhere = [f"{other}/{own}" for other in ROOMS for own in names(other) if plain(own) == plain(name)]
    if elsewhere:
        return f"{name!r} is {' or '.join(elsewhere)}."
    return "" if term is None else term.sentence(name)


def is_built_in(room: str, name: str) -> bool:
    """Whether one of our own components has this name."""
    path = _folder(room) / f"{name.replace('-', '_')}.py"
    return re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", name) is not None and path.is_file() and _holds_component(path)


def _holds_component(path: Path) -> bool:
    """Whether the file has a `@component` class that is named after it."""
    classes = re.findall(r"^@(?:catalog\.)?component\nclass (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return path.stem.replace("_", "") in map(str.lower, classes)


def plugins_of(room: str) -> Plugins:
    """What other packages announce for a room, and what of it is ignored; looked for once on each import path."""
    return _plugins_on(tuple(map(str, sys.path)), _ROOT, room)


@functools.cache
def _plugins_on(path: tuple[str, ...], root: Path, room: str) -> Plugins:
    """Reading what all installed distributions announce takes milliseconds, and parts are loaded by the dozen."""
    return plugins(room, functools.partial(is_built_in, room))


def source_of(room: str, name: str) -> Path | None:
    """The file of one of our own components; None for those of other packages and for `module:attribute`."""
    return _folder(room) / f"{name.replace('-', '_')}.py" if is_built_in(room, name) else None


def contract_source(room: str) -> Path:
    """The file that states the room's contract."""
    return _folder(room) / "contract.py"


def origin(room: str, name: str) -> str:
    """Where a component comes from: `BUILT_IN`, name and version of a distribution, or the file; imports nothing.

    Raises:
        RequestError: No such name, or several packages claim it.
    """
    family = name.partition(":")[0]
    if is_built_in(room, family):
        return BUILT_IN
    if ":" in name:
        return origin_of_place(name.rpartition(":")[0])
    plugin = plugins_of(room).get(name)
    if plugin is None:
        raise RequestError(unknown_name(room, name))
    return plugin.origin


def load(room: str, name: str) -> Any:
    """The component class called `name`, or for `module:attribute` (a module name or a .py file) that attribute.

    Raises:
        RequestError: No such name, several packages claim it, or the user's module cannot be imported.
    """
    if ":" in name:
        return _load_foreign(name)
    if name not in names(room):
        raise RequestError(unknown_name(room, name))
    known = plugins_of(room)
    if name in known.ignored:
        warnings.warn(known.ignored[name], stacklevel=2)
    plugin = known.get(name)
    if plugin is not None:
        return _load_plugin(plugin)
    stem = name.replace("-", "_")
    module = importlib.import_module(f"bascule.{PACKAGES[room]}.{stem}")
    wanted = stem.replace("_", "")
    return next(value for key, value in vars(module).items() if key.lower() == wanted and inspect.isclass(value))


def _load_plugin(plugin: Plugin) -> Any:
    room, name, value = plugin.room, plugin.name, plugin.entry.value
    try:
        module = import_place(plugin.entry.module, plugin.entry.dist)
        thing = functools.reduce(getattr, filter(None, (plugin.entry.attr or "").split(".")), module)
    except (Exception, SystemExit) as error:
        problem = f"cannot load {room}/{name} from {value!r}: {say_where(error)}{_moved(error)}"
        raise RequestError(problem) from error
    identity.loaded(thing, name, plugin)
    return thing


def _load_foreign(name: str) -> Any:
    where, _, attribute = name.rpartition(":")
    check_consent(name)
    try:
        module = import_place(where)
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        raise RequestError(f"cannot import {where!r}: {say_where(error)}{_moved(error)}") from error
    if not hasattr(module, attribute):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise RequestError(unknown(f"name in {where}", attribute, public))
    wanted = getattr(module, attribute)
    identity.loaded(wanted, name)
    return wanted


def _moved(error: BaseException) -> str:
    """For code written for version 0.1, where `bascule.attacks` was `bascule.attack`: what to import now."""
    room = (error.name or "").removeprefix("bascule.") if isinstance(error, ModuleNotFoundError) else ""
    return f". Since version 0.2 it is bascule.{PACKAGES[room]}" if room in PACKAGES else ""


def changed_in(settings: Any) -> tuple[str, ...]:
    """Names of users' parts in settings from a record whose code is not what it was, or is gone; imports nothing."""
    return tuple(name for name, code in identity.codes_in(settings).items() if not _is_as_it_was(name, code))


def _is_as_it_was(name: str, code: str) -> bool:
    if ":" in name:
        return code in identity.codes_named(name)
    found = [one for room in ROOMS for one in plugins_of(room).by_name.get(name, ())]
    return code in [identity.code_of_plugin(one) for one in found]


def name_of(instance: object) -> str:
    """The catalogue name that `instance` was built from.

    One of our classes that stands for a user's function has that function's name in `catalogue_name`.
    """
    cls = type(instance)
    parts = cls.__module__.split(".")
    if parts[0] == "bascule":
        function = getattr(instance, "catalogue_name", None)
        if isinstance(function, str):
            return function
        if len(parts) == 3:
            return parts[2].replace("_", "-")
    return identity.loaded_as(cls) or f"{cls.__module__}:{cls.__qualname__}"
