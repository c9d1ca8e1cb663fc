"""What names in our own source text stand for, found by reading: nothing is imported."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[1]


class Definition(NamedTuple):
    """What a name stands for."""

    node: ast.expr | ast.ClassDef
    """A class, or what is assigned to the name."""
    module: ast.Module
    """The file that says so."""
    source: str
    """Its dotted name; empty for the file that the search began in, if that one was not named."""


def definition(name: str, module: ast.Module, source: str = "") -> Definition | None:
    """What a module says `name` stands for, also where it has it from another module of ours.

    Args:
        name: As it stands in the module.
        module: Its syntax tree.
        source: Its dotted name, where that is known.

    Returns:
        None where it is not ours, or nothing is assigned to it at the top of its module.
    """
    for node in module.body:
        match node:
            case ast.ClassDef(name=target) if target == name:
                return Definition(node, module, source)
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return Definition(value, module, source)
            case ast.ImportFrom(module=str(other), names=names) if other.startswith("bascule."):
                for alias in names:
                    if (alias.asname or alias.name) == name:
                        return definition(alias.name, parsed(other), other)
    return None


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of one of our own modules, by its dotted name."""
    place = _ROOT.joinpath(*source.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))
