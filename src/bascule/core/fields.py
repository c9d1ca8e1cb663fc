"""The fields of a class with their texts, read from its source: Python keeps no docstring of an attribute."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from typing import Any

from bascule.core import readable
from bascule.core.definitions import definition
from bascule.core.json_types import json_type


@dataclass(frozen=True)
class FieldDoc:
    """One field of a component or a result, as written in its source."""

    name: str
    type: str
    default: str | None
    text: str
    allowed: str
    """Type and range in words."""
    written: str | None
    """The default as in a study file; None where there is none."""
    accepts: dict[str, Any]
    """Type and range as JSON Schema."""


def field_docs(node: ast.ClassDef, module: ast.Module, source: str) -> list[FieldDoc]:
    """The fields that stand in a class itself, in their order.

    Args:
        node: The class.
        module: The syntax tree of its file.
        source: The file's dotted name, where it is ours.
    """
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
        meant = definition(default.id, module, source) if isinstance(default, ast.Name) else None
        if meant is not None and isinstance(meant.node, ast.expr):  # a constant, by its name
            default = meant.node
        allowed = readable.allowed(item.annotation, module)
        written = None if default is None else readable.written(default)
        written = "{}" if allowed.startswith("mapping") and written not in (None, "null") else written
        docs.append(
            FieldDoc(
                name=ast.unparse(item.target),
                type=ast.unparse(item.annotation),
                default=None if default is None else ast.unparse(default),
                text=text,
                allowed=allowed,
                written=written,
                accepts=json_type(item.annotation, module, source),
            )
        )
    return docs
