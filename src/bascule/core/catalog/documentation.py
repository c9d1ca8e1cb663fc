"""Docstrings and settings of components, read from the source text."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bascule.core.catalog.component import belongs_to
from bascule.core.catalog.importing import place_of
from bascule.core.catalog.names import contract_source, load, named_settings, names, plugins_of, source_of, unknown_name
from bascule.core.catalog.sources import parsed
from bascule.core.definitions import parsed as parsed_source
from bascule.core.errors import RequestError
from bascule.core.fields import FieldDoc, field_docs

_MAX_DEPTH = 8
"""Modules that a class is looked for in, each having it from the next; two may have it from each other."""


@dataclass(frozen=True)
class Documentation:
    """What `bascule show` prints of a component."""

    summary: str
    text: str
    fields: tuple[FieldDoc, ...]
    variant: str | None = None
    """The field that stands behind a colon in the component's name, as in `torchvision:resnet18`."""


def documentation(room: str, name: str) -> Documentation:
    """Docstring and settings of a component, without importing it when it is one of ours.

    Raises:
        RequestError: No such name; or `module:attribute` is no component of the room.
    """
    family = name.partition(":")[0]
    name = family if family in names(room) else name
    if name not in (*names(room), *named_settings(room)) and ":" not in name:
        raise RequestError(unknown_name(room, name))
    source = _source(room, name)
    return _documentation(room, _loaded_source(room, name) if source is None else source)


def documentation_read(room: str, name: str) -> Documentation | None:
    """As `documentation`, of a component that has a name of its own, never importing it; None where it cannot be read.

    Raises:
        RequestError: Several packages claim the name.
    """
    source = _source(room, name)
    return None if source is None else _documentation(room, source)


def documentation_of(source: str, cls: str) -> Documentation:
    """Docstring and settings of a class of ours that belongs to no room, by the dotted name of its module."""
    tree = parsed_source(source)
    own = next(node for node in _classes(tree) if node.name == cls)
    return _described(own, tree, [(own, tree, source)])


def summary(room: str, name: str) -> str:
    """The first sentence of a component's docstring, read without importing anything; empty where it cannot be found.

    Raises:
        RequestError: Several packages claim the name.
    """
    about = documentation_read(room, name)
    return "" if about is None else about.summary


class _Source(NamedTuple):
    """A class in the file that defines it."""

    node: ast.ClassDef
    module: ast.Module
    name: str = ""
    """The file's dotted name, where it is ours."""


def _source(room: str, name: str) -> _Source | None:
    """The source of one of our own components or named settings, or of another package's; None where it cannot be found
    by reading."""
    cls = named_settings(room).get(name)
    path = source_of(room, name)
    if cls is None and path is not None:
        cls = name.replace("-", "")
    if cls is not None:
        module = f"{_package(room)}.{name.replace('-', '_')}"
        tree = parsed_source(module)
        return next(_Source(node, tree, module) for node in _classes(tree) if node.name.lower() == cls.lower())
    plugin = None if ":" in name else plugins_of(room).get(name)
    return None if plugin is None else _search(plugin.entry.module, plugin.entry.attr or "")


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def _search(module: str, wanted: str, depth: int = 0) -> _Source | None:
    """The class `wanted` of a module, also where the module has it from another one."""
    path = place_of(module)
    tree = None if path is None or path.suffix != ".py" else parsed(path.read_bytes())
    if path is None or tree is None or depth > _MAX_DEPTH:
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == wanted:
            return _Source(node, tree)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == wanted:
                    package = module if path.stem == "__init__" else module.rpartition(".")[0]
                    start = package.rsplit(".", node.level - 1)[0] if node.level else ""
                    return _search(".".join(filter(None, (start, node.module))), alias.name, depth + 1)
    return None


def _loaded_source(room: str, name: str) -> _Source:
    """The source of a component that is imported for it.

    Raises:
        RequestError: It is no component of the room, or has no source.
    """
    cls = load(room, name)
    if not belongs_to(room, cls):
        raise RequestError(f"{name!r} is not a component of {room!r}, so that it has no settings to show")
    try:
        tree = ast.parse(Path(inspect.getsourcefile(cls) or "").read_text(encoding="utf-8"))
        return next(_Source(node, tree) for node in _classes(tree) if node.name == cls.__name__)
    except (OSError, TypeError, ValueError, SyntaxError, StopIteration):
        raise RequestError(f"{room}/{name} has no source to read its settings from") from None


def _documentation(room: str, source: _Source) -> Documentation:
    own, tree, name = source
    contract = f"{_package(room)}.contract"
    base = parsed_source(contract)
    nodes = [*((node, base, contract) for node in _ancestors(own, base)), (own, tree, name)]
    return _described(own, tree, nodes)


def _package(room: str) -> str:
    return f"bascule.{contract_source(room).parent.name}"


def _described(own: ast.ClassDef, tree: ast.Module, nodes: list[tuple[ast.ClassDef, ast.Module, str]]) -> Documentation:
    """What a class and those that it inherits settings from, first ones first, say of themselves."""
    text = inspect.cleandoc(ast.get_docstring(own) or ast.get_docstring(tree) or "")
    fields = {doc.name: doc for node, module, name in nodes for doc in field_docs(node, module, name)}
    return Documentation(_first_sentence(text), text, tuple(fields.values()), _variant(own))


def _variant(own: ast.ClassDef) -> str | None:
    for item in own.body:
        match item:
            case ast.AnnAssign(target=ast.Name(id="variant"), value=ast.Constant(value=str(field))):
                return field
    return None


def _ancestors(cls: ast.ClassDef, module: ast.Module) -> list[ast.ClassDef]:
    """Classes of `module` that `cls` inherits from, in the order in which their fields come."""
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    lineage: list[ast.ClassDef] = []
    for name in (ast.unparse(base).rpartition(".")[2] for base in reversed(cls.bases)):
        if name in classes:
            lineage += [*_ancestors(classes[name], module), classes[name]]
    return lineage


def _first_sentence(text: str) -> str:
    """On one line; "et al. 2018" does not end it."""
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(text.partition("\n\n")[0].split()))[0]
