"""Where every value of a study was written: kept beside the values and merged with them, so that errors can say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bascule.core.errors import RequestError
from bascule.core.text import quote
from bascule.plan.document import Document

Place = tuple[str, ...]
"""A path of keys; an entry of a list is a key of its own, beside that of the list: ("attack[1]", "eps")."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a value was written, and how an error says so."""

    label: str
    """What people look at: "digits.yaml, line 7", or the option that was given, "--set train.lr"."""
    under: Place | None = None
    """In a study file: the keys that lead from its top to the values looked at. None: the file has no such value."""
    said: int = 0
    """How many keys of a place the label says already."""
    about: str = ""
    """What else an error says: which of several values it was."""
    in_file: bool = False
    """Whether the value stands in the study file."""

    def describe(self, place: Place, where: str = "") -> str:
        """Label and place. A file's own place says it all; other origins need `where`, for example the row."""
        if self.under is not None:
            return _joined(self.label, ".".join((*self.under, *place)))
        words = " ".join(filter(None, (where, self.about)))
        return _joined(self.label, words, ".".join(place[self.said :]))

    def inside(self, keys: Place) -> Origin:
        """The same origin, for places that start inside `keys`."""
        if self.under is not None:
            return replace(self, under=(*self.under, *keys))
        return replace(self, said=max(self.said - len(keys), 0))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Values with the origin of each.

    A value that is part of another has an origin of its own. That of a whole is the layer that changed anything in it
    last: where the parts do not go together, it is the last change that brought this about.
    """

    values: Any
    origins: Mapping[Place, Origin]
    root: Origin
    """The origin of the whole, and of what has none of its own."""

    @classmethod
    def of_file(cls, document: Document) -> Layer:
        """Everything that a study file says."""
        root = Origin(label=document.source, under=(), in_file=True)
        places = document.lines.items()
        origins = {
            place: replace(root, label=f"{root.label}, line {line}" if line else root.label) for place, line in places
        }
        return cls(values=document.content, origins=origins, root=root)

    @classmethod
    def of(cls, values: Any, origin: Origin) -> Layer:
        """Values that all come from one origin."""
        return cls(values=values, origins=dict.fromkeys(_places(values), origin), root=origin)

    def find(self, place: Place) -> Origin:
        """The origin of the value at `place`, or of the nearest whole that it is part of."""
        while place:
            if place in self.origins:
                return self.origins[place]
            place = _outer(place)
        return self.root

    def mapping(self, *keys: str) -> dict[str, Any]:
        """The mapping at `keys`; empty where there is none.

        Raises:
            RequestError: Something else stands there; its place is that inside this layer.
        """
        value = self.values
        for number, key in enumerate(keys, start=1):
            value = value.get(key) or {}
            if not isinstance(value, Mapping):
                raise RequestError(f"expected a mapping, got {quote(value)}", place=keys[:number])
            value = {str(name): item for name, item in value.items()}
        return dict(value)

    def value(self, *keys: str) -> Any:
        """What stands at `keys`; None where nothing does."""
        value = self.values
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def at(self, *keys: str) -> Layer:
        """The mapping at `keys` as a layer of its own.

        Raises:
            RequestError: Something else stands there; its place is that inside this layer.
        """
        depth = len(keys)
        origins = {
            place[depth:]: origin.inside(keys)
            for place, origin in self.origins.items()
            if place[:depth] == keys and place[depth:]
        }
        return Layer(values=self.mapping(*keys), origins=origins, root=self.find(keys).inside(keys))

    def merge(self, change: Layer) -> Layer:
        """This layer with `change` on top, as `merge_values` does it; the root stays."""
        return self._with(merge_values(self.values, change.values), change.origins)

    def without(self, key: str, inner: str) -> Layer:
        """This layer without the entry `inner` of the mapping at `key`, if it has one."""
        if inner not in self.mapping(key):
            return self
        rest = {name: value for name, value in self.mapping(key).items() if name != inner}
        return self._with({**self.values, key: rest}, {})

    def put(self, key: str, value: Any, origin: Origin) -> Layer:
        """This layer with `value` in place of all that stands at `key`."""
        return self._with({**self.values, key: value}, Layer.of({key: value}, origin).origins)

    def add(self, key: str, values: Sequence[Any], origin: Origin) -> Layer:
        """This layer with those of `values` in the list at `key` (or single entry, or nothing) that it does not hold
        yet."""
        known = self.values.get(key)
        entries = [] if known is None else list(known) if isinstance(known, (list, tuple)) else [known]
        more = [value for value in values if value not in entries]
        places: list[Place] = [(f"{key}[{number}]",) for number in range(len(entries) + len(more))]
        # The entries known so far keep their origin when that of the list becomes the one of what is added.
        origins = {place: self.find(place) for place in places[: len(entries)]}
        for place, value in zip(places[len(entries) :], more, strict=True):
            origins |= dict.fromkeys([(key,), place, *_places(value, place)], origin)
        return self._with({**self.values, key: [*entries, *more]}, origins)

    def error(self, error: RequestError, where: str = "") -> RequestError:
        """The error with the origin of what it is about, instead of its place in the settings alone."""
        about = error.place if error.key is None else (*error.place, error.key)
        return RequestError(f"{self.find(about).describe(error.place, where)}: {error.problem}")

    @contextmanager
    def trace_errors(self, where: str = "") -> Iterator[None]:
        """A wrong request inside the block says where that was written; `where` is what only a file's place tells."""
        try:
            yield
        except RequestError as error:
            raise self.error(error, where) from None

    def _with(self, values: Any, origins: Mapping[Place, Origin]) -> Layer:
        """These values, with `origins` above those known; without origins of values that are gone."""
        there = set(_places(values))
        kept = {place: origin for place, origin in {**self.origins, **origins}.items() if place in there}
        return replace(self, values=values, origins=kept)


def merge_values(base: Any, change: Any) -> Any:
    """`base` with `change` on top: mappings are merged key by key, everything else is replaced.

    A component with another name replaces the old one whole, so settings of the old one are not left behind; the same
    name, or no name, changes only the settings that are given. The word `none` names nothing.
    """
    named = isinstance(base, str) and base != "none" and isinstance(change, Mapping)
    base_map = {"name": base} if named else base
    if not isinstance(base_map, Mapping) or not isinstance(change, Mapping):
        return change
    if "name" in change and change["name"] != base_map.get("name"):
        return dict(change)
    return {**base_map, **{key: merge_values(base_map.get(key), value) for key, value in change.items()}}


def nested(path: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for the path "a.b"."""
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def _places(value: Any, place: Place = ()) -> Iterator[Place]:
    """The places of everything inside `value`."""
    inner: list[tuple[Place, Any]] = []
    if isinstance(value, Mapping):
        inner = [((*place, str(key)), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and place:
        inner = [((*place[:-1], f"{place[-1]}[{number}]"), item) for number, item in enumerate(value)]
    for here, item in inner:
        yield here
        yield from _places(item, here)


def _outer(place: Place) -> Place:
    """The place of the list that an entry is in, or of the mapping that a key is in."""
    *front, last = place
    name, bracket, _ = last.rpartition("[")
    return (*front, name) if bracket and last.endswith("]") else tuple(front)


def _joined(*parts: str) -> str:
    return ": ".join(filter(None, parts))
