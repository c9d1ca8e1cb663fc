"""Types, ranges and defaults of settings in words, read from the source text: showing a component imports nothing."""

from __future__ import annotations

import ast
import re

from bascule.core.definitions import definition

_WORDS = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "dict": "mapping"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def allowed(annotation: ast.expr, module: ast.Module) -> str:
    """What a field with this annotation takes: `whole number, at least 1, or null`.

    Args:
        annotation: Of the field.
        module: The file that it stands in; names defined there, and those imported from Bascule, are looked up.
    """
    match annotation:
        case ast.Constant(value=None):
            return "null"
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _named(name, module)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            one, other = allowed(left, module), allowed(right, module)
            return f"{one}{', ' if ',' in one else ' '}or {other}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            return " or ".join(written(value) for value in _entries(inner))
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *extras])):
            return _bounded(inner, extras, module)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=inner):
            return _listed(_entries(inner), module)
        case ast.Subscript(value=ast.Name(id="dict")):
            return _WORDS["dict"]
    return ast.unparse(annotation)


def written(value: ast.expr) -> str:
    """A default as it is written in a study file."""
    match value:
        case ast.Constant(value=str(text)):
            return text or "''"
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=bool(truth)):
            return str(truth).lower()
        case ast.Tuple(elts=entries) | ast.List(elts=entries):
            return f"[{', '.join(map(written, entries))}]"
        case ast.BinOp(left=above, op=ast.Div(), right=below):
            return f"{written(above)}/{written(below)}"
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=[]):
            return "{}"
        case ast.Call(func=ast.Name(id=name), args=[], keywords=[]):
            return _kebab(name)
        case ast.Call(func=ast.Name(id=name), args=[], keywords=settings):
            pairs = [f"{setting.arg}: {written(setting.value)}" for setting in settings]
            return f"{{{', '.join([f'name: {_kebab(name)}', *pairs])}}}"
    return ast.unparse(value)


def _entries(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def _named(name: str, module: ast.Module) -> str:
    if name in _WORDS:
        return _WORDS[name]
    found = definition(name, module)
    if found is None or isinstance(found.node, ast.ClassDef):
        return f"mapping with the settings of {_kebab(name)}"
    return allowed(found.node, found.module)


def _bounded(inner: ast.expr, extras: list[ast.expr], module: ast.Module) -> str:
    bounds: dict[str, str] = {}
    text, least = "", ""
    for extra in extras:
        match extra:
            case ast.Call(func=ast.Name(id="Of"), args=[ast.Constant(value=str(room))], keywords=keywords):
                text = f"component of {room}: a name, or a mapping with name and settings"
                text = f"list, each a {text}" if any(word.arg == "many" for word in keywords) else text
            case ast.Call(func=ast.Name(id="Interval"), keywords=keywords):
                bounds |= {str(word.arg): written(word.value) for word in keywords}
            case ast.Call(func=ast.Name(id="MinLen"), args=[least_]):
                least = f", at least {written(least_)} of them"
            case ast.Call(func=ast.Name(id="Ge" | "Gt" | "Le" | "Lt" as kind), args=[bound]):
                bounds[kind.lower()] = written(bound)
    if text:
        return f"{text}, or null" if "None" in ast.unparse(inner) else text
    if {"ge", "le"} <= bounds.keys():
        limits = f" from {bounds['ge']} to {bounds['le']}"
    else:
        limits = "".join(f", {word} {bounds[kind]}" for kind, word in _BOUNDS.items() if kind in bounds)
    return f"{allowed(inner, module)}{limits}{least}"


def _listed(entries: list[ast.expr], module: ast.Module) -> str:
    if isinstance(entries[-1], ast.Constant) and entries[-1].value is ...:
        return f"list, each a {allowed(entries[0], module)}"
    kinds = list(dict.fromkeys(allowed(entry, module) for entry in entries))
    return f"list of {len(entries)}, {'each a ' if len(kinds) == 1 else 'a '}{' then a '.join(kinds)}"
