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
    """Module and name of every class of ours in the annotations of classes and functions.

    Read from the source text, so that what is imported for type checkers alone counts too. Names with a leading
    underscore are left out, and what these classes name in turn.
    """
    places = {place for thing in things for place in _named_by(thing.__module__, thing.__name__)}
    return sorted(place for place in places if is_class(*place))


def is_class(module: str, name: str) -> bool:
    """Whether it is a class, and no other name for a type."""
    return inspect.isclass(getattr(importlib.import_module(module), name, None))


def _named_by(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Types in the annotations of one class or function, and among what it raises."""
    tree, places = _module(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            words = [word for annotation in _annotations(node) for word in _words(annotation)]
            yield from re.findall(r"^ +(bascule(?:\.\w+)+)\.(\w+): ", ast.get_docstring(node) or "", re.MULTILINE)
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
        if isinstance(item, ast.FunctionDef) and (
            item is node or not item.name.startswith("_") or item.name == "__init__"
        ):
            every = [*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs, item.args.vararg, item.args.kwarg]
            yield from (arg.annotation for arg in every if arg is not None and arg.annotation is not None)
            if item.returns is not None:
                yield item.returns


def _words(annotation: ast.expr) -> Iterator[str]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
