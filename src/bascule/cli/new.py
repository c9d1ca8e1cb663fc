"""The command `new`: a study file to start from, or the folder of a plug-in."""

from __future__ import annotations

import importlib.util
import itertools
import keyword
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

import bascule.cli.completion as completion
from bascule.cli.output import echo
from bascule.core.errors import RequestError
from bascule.core.text import quote

TEMPLATES = Path(__file__).parents[1] / "templates"
_STUDY = "study"


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What differs between plug-ins of each kind."""

    a_component: str
    """What it is, for its papers."""
    use: str
    """How a study names it, a key a line."""
    trial: str = ""
    """The setting with which `digits` tries it, where those of `use` do not do."""
    settings: str = ""
    """Those with which its test tries it."""
    about: str = ""
    """What the contract's check is told besides."""


_KINDS: Mapping[str, _Kind] = {
    "data": _Kind(
        a_component="A source of images", use="data: $name\npoison: {trigger: sticker, target: 1, rate: 0.05}"
    ),
    "models": _Kind(a_component="An architecture", use="model: $name"),
    "poison": _Kind(a_component="A backdoor trigger", use="poison: {trigger: $name, target: 7, rate: 0.05}"),
    "attack": _Kind(a_component="An evasion attack", use="attack: {name: $name, eps: 8/255}", settings="eps=0.15"),
    "certify": _Kind(a_component="A certified bound", use="certify: {name: $name, eps: 2/255}", settings="eps=0.02"),
    "explain": _Kind(a_component="An explanation", use="explain: [$name]"),
    "train": _Kind(
        a_component="A training objective",
        use="train: {objective: $name, epochs: 20}",
        trial="rows.Adv. training.train.objective: $name",
    ),
    "filter": _Kind(a_component="A data defence", use="filter: $name"),
    "scan": _Kind(
        a_component="A model scanner",
        use="data: {name: digits, held_out: 200}\nscan: $name",
        settings="starts=10, steps=30, step_size=0.05",
        about=", brief=$cls(starts=2, steps=2)",
    ),
    "detect": _Kind(a_component="A test-time detector", use="data: {name: digits, held_out: 200}\ndetect: $name"),
    "repair": _Kind(
        a_component="A model defence",
        use="data: {name: digits, held_out: 200}\nrepair: $name",
        about=", idle=$cls(share=0.0), draws=False",
    ),
    "measure": _Kind(a_component="A metric", use="measure: [accuracy, asr, $name]"),
}
_TAKEN = ("conftest", "setup", "test", "tests")
"""What pytest and setuptools look for; Python has a `test` that it does not list."""
_THERE = " is there already, and nothing is written over it"
_LONGEST = 100
"""Letters in the name of a component: it is part of names of files."""


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
        files = {
            _study_file("study.yaml" if name is None else name): (TEMPLATES / "study.yaml").read_text(encoding="utf-8")
        }
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
        return f"Then: bascule run {shlex.quote(str(first))}"
    return f'Then: pip install -e "{first.parent}[test]", and pytest {first.parent}'


def _study_file(name: str) -> Path:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not name.isprintable():
        raise RequestError(f"{quote(name)}: the name of a study file ends in .yaml or .yml, and can be printed")
    return path


def _component_name(kind: str, name: str | None) -> str:
    """The name of a component that may be called so.

    Raises:
        RequestError: None is given, it is no plain word, or it is taken.
    """

    if name is None:
        raise RequestError(f"a component needs a name: bascule new {kind} {_free(kind, kind)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > _LONGEST:
        raise RequestError(
            f"{quote(name)}: a component is called with small letters, digits and single -, at most {_LONGEST}, "
            f"as in {_free(kind, kind)}"
        )
    if reason := _taken(kind, name):
        raise RequestError(f"{reason}; give another name, as in {_free(kind, name)}")
    return name


def _taken(kind: str, name: str) -> str:
    """What has this name, so that no component may be called so; "" where nothing has."""
    from bascule.core import catalog

    place = next((place for place in (kind, *catalog.ROOMS) if catalog.is_built_in(place, name)), None)
    if place is not None:
        return f"{place}/{name} is built in"
    if Path(name).exists():
        return f"{name}{_THERE}"
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in _TAKEN or _is_module(module):
        return f"{name!r}: Python has a module or a word of this name"
    return ""


def _free(kind: str, name: str) -> str:
    """A name like this one that nothing has."""
    mine = [] if name.startswith("my-") else [f"my-{name}"]
    numbered = (f"{re.sub(r'-[0-9]+$', '', name)}-{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain(mine, numbered) if one != name and not _taken(kind, one))


def _is_module(name: str) -> bool:
    """Whether `import name` would give another one: of Python or of an installed package, and no mere folder."""
    found = importlib.util.find_spec(name)
    return name in sys.stdlib_module_names or (found is not None and found.origin is not None)


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
    trial = Template(about.trial).substitute(words) or words["use"]
    words["set"] = " ".join("--set '{}={}'".format(*line.split(": ", 1)) for line in trial.splitlines())
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
    """Write a new file, or the files of a new folder: all of them or none.

    Raises:
        RequestError: Something of the name is there, or it cannot be written.
    """
    from bascule.core.files import check_writable

    first = next(iter(files))
    place = first if len(files) == 1 else first.parent
    try:
        if place.exists() or place.is_symlink():
            raise RequestError(f"{place}{_THERE}; give another name or remove it")
        check_writable(place.parent)
        with TemporaryDirectory(dir=place.parent, prefix=".bascule-") as beside:
            for path, text in files.items():
                made = Path(beside) / path.relative_to(place.parent)
                made.parent.mkdir(parents=True, exist_ok=True)
                made.write_text(text, encoding="utf-8")
            (Path(beside) / place.name).rename(place)
    except OSError as error:
        raise RequestError(f"cannot write {quote(str(place))}: {error.strerror}. Give another name or place") from error
