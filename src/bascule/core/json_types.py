"""Types and ranges of settings as JSON Schema, read from the source text: the twin for machines of `core/readable.py`.

A schema here says what study files may say: a list stands for a tuple, a fraction such as `8/255` or a percentage for a
number. What it cannot say is left open, so that nothing is refused that is right: what validators and `__post_init__`
look at, and that 3.0 is no whole number.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from bascule.core.definitions import definition
from bascule.core.text import FRACTION, PERCENT

Schema = dict[str, Any]

_TYPES: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": ["number", "string"], "pattern": f"^({FRACTION}|{PERCENT})$"},
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "Any": {},
}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_NULL: Schema = {"type": "null"}


def reference(name: str) -> Schema:
    """What is defined under a name in `$defs`."""
    return {"$ref": f"#/$defs/{name}"}


def list_of(room: str) -> str:
    """The name in `$defs` of a list of components, where that of one is the room's own."""
    return f"{room}._list"


def json_type(annotation: ast.expr, module: ast.Module, source: str = "") -> Schema:
    """What a field with this annotation takes.

    Components of a room are references to the room, those of no room to their class: `training.settings.Augment`.

    Args:
        annotation: Of the field.
        module: The file that it stands in; names defined there, and those imported from Bascule, are looked up.
        source: The dotted name of that file, where it is known.
    """
    match annotation:
        case ast.Constant(value=None):
            return _NULL
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _named(name, module, source)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return any_of([json_type(left, module, source), json_type(right, module, source)])
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            return {"enum": [ast.literal_eval(value) for value in _entries(inner)]}
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *extras])):
            return _bounded(inner, extras, module, source)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=inner):
            return _listed(_entries(inner), module, source)
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, value])):
            values = json_type(value, module, source)
            return {"type": "object", **({"additionalProperties": values} if values else {})}
    return {}


def any_of(options: Sequence[Schema]) -> Schema:
    """What fits one of these, as briefly as it can be said: `{"type": ["integer", "null"]}`."""
    flat = [part for option in options for part in (option["anyOf"] if option.keys() == {"anyOf"} else [option])]
    if {} in flat:
        return {}
    words = [word for option in flat if option.keys() == {"enum"} for word in option["enum"]]
    rest = [option for option in flat if option.keys() != {"enum"} and option != _NULL]
    merged: list[Schema] = [{"enum": list(dict.fromkeys(words))}] if words else []
    merged += [option for number, option in enumerate(rest) if option not in rest[:number]]
    if _NULL in flat:
        merged = _or_null(merged)
    return merged[0] if len(merged) == 1 else {"anyOf": merged}


def _or_null(options: list[Schema]) -> list[Schema]:
    first, *others = options or [_NULL]
    if first.keys() == {"enum"}:
        return [{"enum": [*first["enum"], None]}, *others]
    if "type" in first and "enum" not in first:
        types = first["type"] if isinstance(first["type"], list) else [first["type"]]
        return [{**first, "type": list(dict.fromkeys((*types, "null")))}, *others]
    return [*options, _NULL]


def _entries(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _named(name: str, module: ast.Module, source: str) -> Schema:
    if name in _TYPES:
        return _TYPES[name]
    found = definition(name, module, source)
    if found is None:
        return {}
    if isinstance(found.node, ast.ClassDef):
        return reference(f"{found.source.removeprefix('bascule.')}.{name}") if found.source else {}
    return json_type(found.node, found.module, found.source)


def _bounded(inner: ast.expr, extras: list[ast.expr], module: ast.Module, source: str) -> Schema:
    limits: Schema = {}
    least = 0
    for extra in extras:
        match extra:
            case ast.Call(func=ast.Name(id="Of"), args=[ast.Constant(value=str(room))], keywords=keywords):
                many = any(word.arg == "many" for word in keywords)
                component = reference(list_of(room) if many else room)
                return any_of([component, _NULL]) if "None" in ast.unparse(inner) else component
            case ast.Call(func=ast.Name(id="Interval"), keywords=keywords):
                limits |= {_BOUNDS[str(word.arg)]: ast.literal_eval(word.value) for word in keywords}
            case ast.Call(func=ast.Name(id="Ge" | "Gt" | "Le" | "Lt" as kind), args=[bound]):
                limits[_BOUNDS[kind.lower()]] = ast.literal_eval(bound)
            case ast.Call(func=ast.Name(id="MinLen"), args=[length]):
                least = ast.literal_eval(length)
    schema = {**json_type(inner, module, source), **limits}
    if least:
        schema["minItems" if schema.get("type") == "array" else "minLength"] = least
    if "pattern" in schema and max(limits.get("minimum", -1), limits.get("exclusiveMinimum", -1)) >= 0:
        schema["pattern"] = schema["pattern"].replace("^(", r"^(?!\s*-)(", 1)
    return schema


def _listed(entries: list[ast.expr], module: ast.Module, source: str) -> Schema:
    if isinstance(entries[-1], ast.Constant) and entries[-1].value is ...:
        return {"type": "array", "items": _whole(entries[0], module, source)}
    kinds = [json_type(entry, module, source) for entry in entries]
    length = {"minItems": len(kinds), "maxItems": len(kinds)}
    if all(kind == kinds[0] for kind in kinds):
        return {"type": "array", "items": kinds[0], **length}
    return {"type": "array", "prefixItems": kinds, "items": False, **length}


def _whole(entry: ast.expr, module: ast.Module, source: str) -> Schema:
    """An entry of a list, which nothing is merged into: settings without a default must stand there."""
    schema = json_type(entry, module, source)
    found = definition(entry.id, module, source) if isinstance(entry, ast.Name) else None
    if found is None or not isinstance(found.node, ast.ClassDef) or not schema:
        return schema
    return {**schema, "required": required(found.node)}


def required(node: ast.ClassDef) -> list[str]:
    """Fields of a class that have no default."""
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and item.value is None]
    return [ast.unparse(field.target) for field in fields if "ClassVar" not in ast.unparse(field.annotation)]
