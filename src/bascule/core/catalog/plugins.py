"""Components that other packages announce through entry points in the group `bascule.<room>`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distribution, entry_points, packages_distributions
from pathlib import Path

from bascule.core.errors import RequestError


@dataclass(frozen=True)
class Plugin:
    """One component of another package."""

    room: str
    entry: EntryPoint

    @property
    def name(self) -> str:
        """Its name in the catalogue."""
        return self.entry.name

    @property
    def origin(self) -> str:
        """Name and version of the distribution."""
        return about(self.entry.dist)


@dataclass(frozen=True)
class Plugins:
    """What other packages announce for a room."""

    by_name: Mapping[str, tuple[Plugin, ...]]
    """More than one where several claim a name, which then nobody has."""
    ignored: Mapping[str, str]
    """Why a plug-in is left out, by the built-in name that it claims or else by its own."""

    def get(self, name: str) -> Plugin | None:
        """The plug-in of this name; None where there is none.

        Raises:
            RequestError: Several claim the name.
        """
        claims = self.by_name.get(name, ())
        if len(claims) > 1:
            who = " and ".join(dict.fromkeys(f"{claim.origin} ({claim.entry.value})" for claim in claims))
            raise RequestError(
                f"{claims[0].room}/{name} is announced by {who}: which one is meant cannot be told. "
                "Uninstall all but one"
            )
        return claims[0] if claims else None


def plugins(room: str, is_built_in: Callable[[str], bool]) -> Plugins:
    """What other packages announce for a room.

    A name of ours is never theirs, however it is written: tables take `-` for `_`.
    """
    known: dict[str, list[Plugin]] = {}
    ignored: dict[str, str] = {}
    for entry in announced(f"bascule.{room}"):
        plugin = Plugin(room, entry)
        name = _plain(entry.name)
        if is_built_in(name):
            ignored[name] = (
                f"{room}/{entry.name} of {plugin.origin} is ignored: {room}/{name} is built in. It needs another name"
            )
        elif not re.fullmatch(r"[^\W_][\w.-]*", entry.name):
            ignored[entry.name] = f"the {room} name {entry.name!r} of {plugin.origin} is ignored: it is no plain word"
        else:
            known.setdefault(name, []).append(plugin)
    return Plugins({one.name: tuple(claims) for claims in known.values() for one in claims}, ignored)


def announced(group: str) -> list[EntryPoint]:
    """The entry points of a group, by name; one of a package that is found twice, as edited and as installed, once."""
    found: dict[tuple[str, str, str], EntryPoint] = {}
    for one in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        found.setdefault((about(one.dist), _plain(one.name), one.value), one)
    return list(found.values())


def _plain(name: str) -> str:
    return name.replace("_", "-").lower()


def about(dist: Distribution | None) -> str:
    """Name and version of a distribution, as one reads them; whatever its metadata lack is `unknown`."""
    if dist is None:
        return "an unknown distribution"
    try:
        name, version = dist.metadata["Name"], dist.metadata["Version"]
    except Exception:  # metadata that cannot be read are as good as none
        name, version = "", ""
    folder = getattr(getattr(dist, "_path", None), "name", "")
    stem = re.match(r"([\w.]+)-([\w.!+]+)\.(?:dist|egg)-info$", folder)
    words = (name or (stem and stem[1]) or "unknown", version or (stem and stem[2]) or "unknown")
    return " ".join(re.sub(r"[^\w.!+-]", "?", word) for word in words)


def is_from_index(dist: Distribution) -> bool:
    """Whether its version tells its code: not when it was installed from a folder or an address (PEP 610)."""
    try:
        return dist.read_text("direct_url.json") is None
    except (OSError, ValueError):
        return False


def files_of_distribution(dist: Distribution) -> list[Path]:
    """The folders and single modules that a distribution has installed, outermost ones only."""
    tops = dict.fromkeys(file.parts[0] for file in dist.files or () if file.parts[0] != "..")
    return [Path(str(dist.locate_file(top))).resolve() for top in tops]


def distribution_of(module: str) -> Distribution | None:
    """The distribution that an installed module belongs to; None where that cannot be told."""
    top = module.partition(".")[0]
    owners = set(packages_distributions().get(top, ()))
    try:
        return distribution(owners.pop()) if len(owners) == 1 else None
    except Exception:  # its metadata cannot be read
        return None
