"""The command `new`: a study file to start from, or the folder of a plug-in."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated

import typer

import bascule.cli.completion as completion
from bascule.cli.output import echo
from bascule.core.errors import RequestError

TEMPLATES = Path(__file__).parents[1] / "templates"
_STUDY = "study"


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What differs between plug-ins of each kind."""

    a_component: str
    """What it is, for its papers."""
    use: str
    """How a study names it."""
    settings: str = ""
    """Those with which its test tries it."""
    about: str = ""
    """What the contract's check is told besides."""


_KINDS: Mapping[str, _Kind] = {
    "data": _Kind(a_component="A source of images", use="data: $name"),
    "models": _Kind(a_component="An architecture", use="model: $name"),
    "poison": _Kind(a_component="A backdoor trigger", use="poison: {trigger: $name, target: 7, rate: 0.05}"),
    "attack": _Kind(a_component="An evasion attack", use="attack: {name: $name, eps: 8/255}", settings="eps=0.15"),
    "certify": _Kind(a_component="A certified bound", use="certify: {name: $name, eps: 2/255}", settings="eps=0.02"),
    "explain": _Kind(a_component="An explanation", use="explain: [$name]"),
    "train": _Kind(a_component="A training objective", use="train: {objective: $name, epochs: 20}"),
    "filter": _Kind(a_component="A data defence", use="filter: $name"),
    "scan": _Kind(
        a_component="A model scanner",
        use="scan: $name",
        settings="starts=10, steps=30, step_size=0.05",
        about=", brief=$cls(starts=2, steps=2)",
    ),
    "detect": _Kind(a_component="A test-time detector", use="detect: $name"),
    "repair": _Kind(a_component="A model defence", use="repair: $name", about=", idle=$cls(share=0.0), draws=False"),
    "measure": _Kind(a_component="A metric", use="measure: [accuracy, asr, $name]"),
}
_TAKEN = ("bascule", "torch", "numpy", "test", "tests")
"""Modules that would hide, or be hidden by, one of this name; Python has a `test` that it does not list."""


def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="study, or a kind of component (see: bascule ls).",
            autocompletion=completion.new_kinds,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Of a study the file, by default study.yaml; of a component its name."),
    ] = None,
) -> None:
    """Write a study file to start from, or the folder of a plug-in: a component, its test, what makes it a package."""
    from bascule.core import catalog

    if kind == _STUDY:
        files = {_study_file(name or "study.yaml"): (TEMPLATES / "study.yaml").read_text(encoding="utf-8")}
    elif kind in _KINDS:
        files = _plugin(kind, _component_name(kind, name))
    else:
        raise RequestError(catalog.unknown_kind(kind, besides=(_STUDY,)))
    _write(files)
    for path in files:
        echo(path)
    echo(_next(kind, next(iter(files))))


def _next(kind: str, first: Path) -> str:
    if kind == _STUDY:
        return f"Then: bascule run {first}"
    return f'Then: pip install -e "{first.parent}[test]", and pytest {first.parent}'


def _study_file(name: str) -> Path:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise RequestError(f"{name!r}: the name of a study file ends in .yaml or .yml")
    return path


def _component_name(kind: str, name: str | None) -> str:
    """The name of a component that may be called so.

    Raises:
        RequestError: None is given, it is no plain word, or it is taken.
    """
    from bascule.core import catalog

    if name is None:
        raise RequestError(f"a component needs a name: bascule new {kind} my-{kind}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 100:
        raise RequestError(f"{name!r}: a component is called with small letters, digits and single -, as in my-{kind}")
    module = name.replace("-", "_")
    if module in sys.stdlib_module_names or keyword.iskeyword(module) or module in _TAKEN:
        raise RequestError(f"{name!r}: Python has a module or a word of this name; give another one, as in my-{module}")
    for place in (kind, *catalog.ROOMS):
        if catalog.is_built_in(place, name):
            raise RequestError(f"{place}/{name} is built in; give another name, as in my-{name}")
    return name


def _plugin(kind: str, name: str) -> dict[Path, str]:
    """The files of a plug-in, its pyproject.toml first."""
    from importlib.metadata import version

    about, module = _KINDS[kind], name.replace("-", "_")
    words = {
        "kind": kind, "name": name, "module": module, "cls": "".join(map(str.capitalize, name.split("-"))),
        "title": " ".join(map(str.capitalize, name.split("-"))), "version": version("bascule"),
        "a_component": about.a_component, "settings": about.settings,
    }  # fmt: skip
    words |= {key: Template(text).substitute(words) for key, text in (("use", about.use), ("about", about.about))}
    folder = Path(name)
    templates = {
        folder / "pyproject.toml": "plugin/pyproject.toml.txt",
        folder / "README.md": "plugin/README.md.txt",
        folder / "src" / f"{module}.py": f"components/{kind}.py.txt",
        folder / "tests" / f"test_{module}.py": "plugin/test.py.txt",
    }
    return {
        path: Template((TEMPLATES / file).read_text(encoding="utf-8")).substitute(words)
        for path, file in templates.items()
    }


def _write(files: Mapping[Path, str]) -> None:
    """Write new files.

    Raises:
        RequestError: Something of the name is there; nothing is written then.
    """
    from bascule.core.files import check_writable

    first = next(iter(files))
    place = first if len(files) == 1 else first.parent
    if place.exists() or place.is_symlink():
        raise RequestError(f"{place} is there already, and nothing is written over it; give another name or remove it")
    check_writable(place.parent)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
