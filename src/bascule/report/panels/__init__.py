"""Parts of the page: a module here with `TITLE`, `PLACE` and `context`, and beside it a template of the same name.

Being in this folder is all that a panel needs; the page and the export find it there.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from bascule.report.view import View


class Panel(Protocol):
    """A part of the page."""

    __name__: str
    TITLE: str
    """Its heading."""
    PLACE: int
    """Where it stands: panels follow each other by rising number, with gaps for more between them."""

    def context(self, view: View) -> Mapping[str, Any] | None:
        """The variables of the panel's template; None when the runs give it nothing to show."""


def panels() -> list[Panel]:
    """All of them, in the order of the page."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    modules: list[Panel] = [import_module(f"{__name__}.{name}") for name in names]
    return sorted(modules, key=lambda panel: panel.PLACE)


def name_of(panel: Panel) -> str:
    """Name of its module and its template, and the address of its section on the page."""
    return panel.__name__.rpartition(".")[2]
