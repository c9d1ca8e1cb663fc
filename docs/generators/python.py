"""What `import bascule` gives: found by walking it, so that what comes later is there too; texts are the docstrings."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import bascule
from bascule.core import catalog
from generators import components
from generators.markdown import code, escaped, table
from generators.offered import offered, packages
from generators.types import named_in


def pages() -> dict[str, str]:
    """Pages by name: what `bascule` itself offers, and one for each package."""
    below = [name for name in packages() if name != "api"]
    listed = [f"- [bascule.{name}]({name}.md): {escaped(_summary(name))}" for name in below]
    functions, classes = public()
    head = (
        '# Python\n\n`import bascule`. Components are named as in a study file (`"pgd"`), given as a mapping '
        '(`{"name": "pgd", "eps": 0.1}`) or made (`bascule.attacks.Pgd(eps=0.1)`). '
        "Examples: [guide](../../guide/python.md)."
    )
    parts = [head, "## Functions", _autodoc("function", "bascule", functions)]
    if classes:
        parts += ["## Classes", _autodoc("class", "bascule", classes)]
    listed.append("- [Types](types.md): what stands in the signatures and belongs to no package")
    parts += ["## Packages", "\n".join(listed)]
    return {"index": "\n\n".join(parts) + "\n", "types": _types(), **{name: _package(name) for name in below}}


def public() -> tuple[list[str], list[str]]:
    """Functions and classes that `bascule` itself offers."""
    names = [name for name in dir(bascule) if not name.startswith("_")]
    things = {name: getattr(bascule, name) for name in names}
    things = {name: thing for name, thing in things.items() if not isinstance(thing, ModuleType)}
    own = {name: thing for name, thing in things.items() if str(getattr(thing, "__module__", "")).startswith("bascule")}
    classes = [name for name, thing in own.items() if inspect.isclass(thing)]
    return [name for name, thing in own.items() if callable(thing) and name not in classes], classes


def types() -> list[tuple[str, str]]:
    """Module and name of the types in public signatures that have no place in a package."""
    here = [getattr(bascule, name) for names in public() for name in names]
    there = [_thing(package, name) for package in packages() for name in offered(package)]
    described = [thing for thing in (*here, *there) if inspect.isclass(thing) or inspect.isfunction(thing)]
    known = {(thing.__module__, thing.__name__) for thing in described}
    shown = [thing for thing in described if getattr(thing, "room", None) is None or inspect.isabstract(thing)]
    return [place for place in named_in(shown) if place not in known]


def _types() -> str:
    head = "# Types\n\nWhat stands in the signatures of functions and contracts, and in no package's list."
    parts = [_autodoc("class", module, [name]) for module, name in types()]
    return "\n\n".join([head, *parts]) + "\n"


def _thing(package: str, name: str) -> object:
    return getattr(importlib.import_module(f"bascule.{package}"), name)


def _summary(package: str) -> str:
    return (importlib.import_module(f"bascule.{package}").__doc__ or "").strip().partition("\n")[0]


def _package(package: str) -> str:
    """Components as links to their settings, all else with its docstring."""
    kind = next((kind for kind, name in catalog.PACKAGES.items() if name == package), "")
    known = {name.replace("-", "_"): name for name in components.names(kind)} if kind else {}
    there = {name: known[module] for name, module in offered(package).items() if module in known}
    lines = [
        (
            f"[{code(name)}](../components/{kind}.md#{components.anchor(kind, own)})",
            escaped(catalog.summary(kind, own)),
        )
        for name, own in there.items()
    ]
    top = {getattr(bascule, name): name for names in public() for name in names}
    others = [name for name in offered(package) if name not in there and _thing(package, name) not in top]
    above = [name for name in offered(package) if name not in there and name not in others]
    parts = [f"# bascule.{package}", escaped(_summary(package))]
    if lines:
        parts += ["## Components", table(("class", "what it is"), lines)]
    if above:
        parts.append(f"{', '.join(map(code, above))}: told with the functions of [bascule](index.md).")
    if others:
        module = importlib.import_module(f"bascule.{package}")
        classes = [name for name in others if inspect.isclass(getattr(module, name))]
        parts += ["## Contract" if kind else "## What it offers"]
        parts += [_autodoc("class", f"bascule.{package}", classes)] if classes else []
        rest = [name for name in others if name not in classes and callable(getattr(module, name))]
        parts += [_autodoc("function", f"bascule.{package}", rest)] if rest else []
    return "\n\n".join(parts) + "\n"


def _autodoc(sort: str, module: str, names: list[str]) -> str:
    """Sphinx's directives, which take signatures, types and docstrings from the code."""
    members = "\n   :members:\n   :member-order: bysource" if sort == "class" else ""
    directives = [f".. auto{sort}:: {module}.{name}{members}" for name in names]
    return "```{eval-rst}\n" + "\n\n".join(directives) + "\n```"
