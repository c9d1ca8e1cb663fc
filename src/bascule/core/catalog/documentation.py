"""Docstrings and settings of components, read from the source text."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path

from bascule.core import readable
from bascule.core.catalog.component import belongs_to
from bascule.core.catalog.names import contract_source, load, names, source_of
from bascule.core.errors import RequestError, unknown


@dataclass(frozen=True)
class FieldDoc:
    """One setting of a component, as written in its source."""

    name: str
    type: str
    default: str | None
    text: str
    allowed: str
    """Type and range in words."""
    written: str | None
    """The default as in a study file; None where there is none."""


@dataclass(frozen=True)
class Documentation:
    """What `bascule show` prints of a component."""

    summary: str
    text: str
    fields: tuple[FieldDoc, ...]


def documentation(room: str, name: str) -> Documentation:
    """Docstring and settings of a component, without importing it when it is one of ours.

    Raises:
        RequestError: No such name; or `module:attribute` is no component of the room.
    """
    family = name.partition(":")[0]
    name = family if family in names(room) else name
    if name not in names(room) and ":" not in name:
        raise RequestError(unknown(f"{room} name", name, names(room)))
    path, wanted = source_of(room, name), name.replace("-", "").lower()
    if path is None:
        cls = load(room, name)
        if not belongs_to(room, cls):
            raise RequestError(f"{name!r} is not a component of {room!r}, so that it has no settings to show")
        path, wanted = Path(inspect.getsourcefile(cls) or ""), cls.__name__.lower()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.lower() == wanted)
    base = ast.parse(contract_source(room).read_text(encoding="utf-8"))
    text = inspect.cleandoc(ast.get_docstring(own) or ast.get_docstring(tree) or "")
    nodes = [*((node, base) for node in _ancestors(own, base)), (own, tree)]
    fields = {doc.name: doc for node, module in nodes for doc in _field_docs(node, module)}
    return Documentation(_first_sentence(text), text, tuple(fields.values()))


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


def _field_docs(node: ast.ClassDef, module: ast.Module) -> list[FieldDoc]:
    docs = []
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or "ClassVar" in ast.unparse(item.annotation):
            continue
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = inspect.cleandoc(str(following.value.value))
        match item.value:
            case ast.Call(keywords=[ast.keyword(arg="default_factory", value=factory)]):
                default: ast.expr | None = ast.Call(func=factory, args=[], keywords=[])
            case value:
                default = value
        allowed = readable.allowed(item.annotation, module)
        written = None if default is None else "{}" if allowed.startswith("mapping") else readable.written(default)
        docs.append(
            FieldDoc(
                name=ast.unparse(item.target),
                type=ast.unparse(item.annotation),
                default=None if default is None else ast.unparse(default),
                text=text,
                allowed=allowed,
                written=written,
            )
        )
    return docs
