"""Reading a study file: plain settings with the line of every key, nothing accepted in silence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bascule.core.errors import RequestError, unknown

BUILT_IN = Path(__file__).parents[1] / "studies"


_FRACTION = "!fraction"


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with numbers as in YAML 1.2: 1e-3 is a number, and so is 8 but not 010 in octal.

    A value may be a fraction, as radii are written: 8/255. A key of this form stays text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.tag == _FRACTION:
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _fraction(loader: _Loader, node: yaml.ScalarNode) -> float:
    above, _, below = node.value.partition("/")
    return float(above) / int(below)


_Loader.add_implicit_resolver(_FRACTION, re.compile(r"^-?\d+(\.\d+)?/0*[1-9]\d*$"), list("-0123456789"))
_Loader.add_constructor(_FRACTION, _fraction)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$|^[-+]?(\d+\.\d*|\.\d+)$"),
    list("-+0123456789."),
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A study file as plain values."""

    name: str
    source: str
    """Where it came from, for messages."""
    text: str
    content: dict[str, Any]
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Line (from 1) of every key, by its path."""


def built_in_names() -> list[str]:
    """Names of the studies that ship with the package."""
    return sorted(path.relative_to(BUILT_IN).with_suffix("").as_posix() for path in BUILT_IN.rglob("*.yaml"))


def read_study(study: str) -> Document:
    """The study called `study`: a built-in name, or the path of a YAML file.

    Raises:
        RequestError: No such study, or the file is no mapping, damaged, or has a key twice.
    """
    path = Path(study)
    if study in built_in_names():
        path, name = BUILT_IN / f"{study}.yaml", study
    elif path.suffix in (".yaml", ".yml"):
        name = path.stem
    elif path.suffix or path.is_file():
        raise RequestError(f"{study!r}: the name of a study file ends in .yaml or .yml")
    else:
        raise RequestError(f"{unknown('study', study, built_in_names())} Or give the path of a .yaml file.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the study {study!r}: {error}") from error
    return parse_study(text, name=name, source=study)


def parse_study(text: str, *, name: str, source: str) -> Document:
    """The study written in `text`."""
    lines: dict[tuple[str, ...], int] = {}
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None or not isinstance(root, yaml.MappingNode):
            raise RequestError(f"{source}: a study is a mapping with the keys base and rows; this file holds none")
        _index(root, (), lines, source)
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise RequestError(f"{source}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    return Document(name=name, source=source, text=text, content=content, lines=lines)


def _index(node: yaml.Node, place: tuple[str, ...], lines: dict[tuple[str, ...], int], source: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            here = (*place[:-1], f"{place[-1]}[{number}]") if place else (f"[{number}]",)
            lines[here] = item.start_mark.line + 1
            _index(item, here, lines, source)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*place, str(key.value))
        line = key.start_mark.line + 1
        if here in lines:
            raise RequestError(f"{source}, line {line}: {'.'.join(here)} stands twice; first in line {lines[here]}")
        lines[here] = line
        _index(value, here, lines, source)


def parse_value(text: str) -> Any:
    """A value as it would be read from a study file: `0.3`, `[1, 2]`, `{name: pgd, eps: 0.3}`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RequestError(f"cannot read the value {text!r}: {getattr(error, 'problem', None) or error}") from error
