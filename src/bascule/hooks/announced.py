"""Hooks that other packages announce through entry points in the group `bascule.hooks`.

They act unless the environment variable BASCULE_HOOKS says otherwise: `none`, or the names of those that shall, with
commas between.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint

from bascule.core.catalog.plugins import about, announced
from bascule.core.errors import RequestError, say_where, unknown
from bascule.hooks.contract import Hook

GROUP = "bascule.hooks"
"""Where other packages announce them."""
SWITCH = "BASCULE_HOOKS"
"""The environment variable that says which of them act."""


@dataclass(frozen=True)
class InstalledHook:
    """A hook of another package."""

    entry: EntryPoint
    on: bool
    """Whether it acts."""

    @property
    def name(self) -> str:
        """What it is announced as."""
        return self.entry.name

    @property
    def origin(self) -> str:
        """Name and version of its distribution."""
        return about(self.entry.dist)

    @property
    def label(self) -> str:
        """Both, for the record."""
        return f"{self.name} ({self.origin})"

    def made(self) -> Hook:
        """The hook itself.

        Raises:
            Exception: Whatever its package raises, or TypeError where it is no hook.
        """
        hook = self.entry.load()()
        if not isinstance(hook, Hook):
            raise TypeError(f"{self.entry.value} makes {type(hook).__name__}, which is no bascule.hooks.Hook")
        return hook


def installed(environment: Mapping[str, str] = os.environ) -> tuple[InstalledHook, ...]:
    """What other packages announce, by name, with whether each acts; imports none of them.

    Raises:
        RequestError: BASCULE_HOOKS names one that is not installed.
    """
    found = announced(GROUP)
    text = environment.get(SWITCH, "").strip()
    wanted = [word.strip() for word in text.split(",") if word.strip()]
    if wanted == ["none"]:
        wanted, text = [], "none"
    for word in wanted:
        if word not in {one.name for one in found}:
            names = [one.name for one in found]
            raise RequestError(f"${SWITCH}: {unknown('hook', word, [*names, 'none'])}")
    return tuple(InstalledHook(one, not text or one.name in wanted) for one in found)


def made_hooks() -> dict[str, Hook]:
    """Those that act, by name and distribution; one that cannot be made is left out with a warning.

    Raises:
        RequestError: As `installed`.
    """
    made: dict[str, Hook] = {}
    for one in installed():
        if one.on:
            try:
                made[one.label] = one.made()
            except (Exception, SystemExit) as error:  # whatever somebody's package does when it is imported
                problem = f"the hook {one.label} cannot be loaded, and the run goes on: {say_where(error)}"
                warnings.warn(problem, stacklevel=2)
    return made
