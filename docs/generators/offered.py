"""What a package offers, read from its `__init__.pyi`."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import bascule

ROOT = Path(bascule.__file__).parent


@functools.cache
def offered(package: str) -> dict[str, str]:
    """The module behind each public name of a package (`""` for bascule itself); empty where it has no list."""
    stub = ROOT / package / "__init__.pyi"
    if not stub.exists():
        return {}
    nodes = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    found = {alias.asname or alias.name: node.module or alias.name for node in nodes for alias in node.names}
    return {name: module for name, module in found.items() if not name.startswith("_")}


def packages() -> list[str]:
    """Packages that list what they offer, by name."""
    return sorted(path.parent.name for path in ROOT.glob("*/__init__.pyi"))
