"""Types that stand in the signatures of what is public and that no package offers: they are described as well."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def named_in(things: Iterable[Any]) -> list[tuple[str, str]]:
    """Module and name of every type of ours in the annotations of classes and functions, and in those of these types.

    Read from the source text, so that what is imported for type checkers alone counts too. Names with a leading
    underscore are left out.
    """
    found: dict[tuple[str, str], None] = {}
    waiting = [(thing.__module__, thing.__name__) for thing in things]
    seen = set(waiting)
    while waiting:
        for place in _named_by(*waiting.pop()):
            if place not in seen:
                seen.add(place)
                found[place] = None
                waiting.append(place)
    return sorted(found)


def is_class(module: str, name: str) -> bool:
    """Whether it is a class, and no other name for a type."""
    return inspect.isclass(getattr(importlib.import_module(module), name, None))


def _named_by(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Types in the annotations of one class or function, in what another name stands for, and among what is raised."""
    tree, places = _module(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            words = [word for annotation in _annotations(node) for word in _words(annotation)]
            raised = re.findall(
                r"^ +(bascule(?:\.\w+)+)\.(\w+): ", ast.unparse(node).replace("\\n", "\n"), re.MULTILINE
            )
            yield from raised
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and node.value is not None:
            words = list(_words(node.value))
        else:
            continue
        yield from (places[word] for word in dict.fromkeys(words) if word in places and not word.startswith("_"))


@functools.cache
def _module(name: str) -> tuple[ast.Module, dict[str, tuple[str, str]]]:
    """The file of a module, and where its types are from: ours that it imports, and its own classes."""
    source = inspect.getsourcefile(importlib.import_module(name))
    tree = ast.parse(Path(source or "").read_text(encoding="utf-8"))
    places = {node.name: (name, node.name) for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bascule."):
            for alias in node.names:
                places[alias.asname or alias.name] = _defined_in(node.module or "", alias.name)
    return tree, places


def _defined_in(module: str, name: str) -> tuple[str, str]:
    """Where a name that a package hands on is defined."""
    thing = getattr(importlib.import_module(module), name, None)
    return (thing.__module__, thing.__name__) if inspect.isclass(thing) else (module, name)


def _annotations(node: ast.ClassDef | ast.FunctionDef) -> Iterator[ast.expr]:
    """Of public fields, arguments and answers."""
    for item in [node] if isinstance(node, ast.FunctionDef) else node.body:
        if isinstance(item, ast.AnnAssign):
            yield item.annotation
        if isinstance(item, ast.FunctionDef) and (item is node or not item.name.startswith("_") or _makes(item)):
            every = [*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs, item.args.vararg, item.args.kwarg]
            yield from (arg.annotation for arg in every if arg is not None and arg.annotation is not None)
            if item.returns is not None:
                yield item.returns
        if isinstance(item, ast.FunctionDef) and _makes(item):
            yield from (part.annotation for part in ast.walk(item) if isinstance(part, ast.AnnAssign))


def _makes(function: ast.FunctionDef) -> bool:
    return function.name == "__init__"


def _words(annotation: ast.expr) -> Iterator[str]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
