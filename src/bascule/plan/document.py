"""Reading a study file: plain settings with the line of every key, nothing accepted in silence."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bascule.core.errors import RequestError, unknown
from bascule.core.text import quote, steers
from bascule.plan._loading import LARGEST, Loader

BUILT_IN = Path(__file__).parents[1] / "studies"


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
    folder: Path | None = None
    """Where the study's file lies; None where it has none, is built in, or lies in the current folder."""


def built_in_names() -> list[str]:
    """Names of the studies that ship with the package."""
    return sorted(path.relative_to(BUILT_IN).with_suffix("").as_posix() for path in BUILT_IN.rglob("*.yaml"))


def read_study(study: str) -> Document:
    """The study called `study`: a built-in name, or the path of a YAML file.

    Raises:
        RequestError: No such study, or the file is no mapping, damaged, or has a key twice.
    """
    path, folder = Path(study), None
    if study in built_in_names():
        path, name = BUILT_IN / f"{study}.yaml", study
    elif path.suffix in (".yaml", ".yml"):
        name, folder = path.stem, path.parent
        if name.startswith(".") or steers(name):
            raise RequestError(f"{quote(study)}: a study is called like its file, and so is its run folder; rename it")
    elif path.suffix or path.is_file():
        raise RequestError(f"{quote(study)}: the name of a study file ends in .yaml or .yml")
    else:
        raise RequestError(f"{unknown('study', study, built_in_names())} Or give the path of a .yaml file.")
    try:
        text = _read(path)
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a path with a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"cannot read the study {quote(study)}: {reason}") from error
    return parse_study(text, name=name, source=study, folder=folder)


def _read(path: Path) -> str:
    """The text of a plain file. What has no end (a device, a pipe) is not waited for."""
    # Not blocking, since opening a pipe waits for somebody who writes to it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise RequestError(f"{path} is a device or a pipe, not a file: give the path of a .yaml file")
        content = file.read(4 * LARGEST + 1)  # UTF-8 takes up to four bytes for a character
    if len(content) > 4 * LARGEST:
        raise RequestError(f"{path}: more than the {LARGEST:,} characters that a study may have")
    return content.decode("utf-8")


def parse_study(text: str, *, name: str, source: str, folder: Path | None = None) -> Document:
    """The study written in `text`, which files lie beside where it has a folder.

    Raises:
        RequestError: No mapping, damaged, beyond a limit, or a key twice; with the line.
    """
    lines: dict[tuple[str, ...], int] = {}
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None or not isinstance(root, yaml.MappingNode):
            raise RequestError(f"{source}: a study is a mapping with the keys base and rows; this file holds none")
        _index(root, (), lines, source)
        content = loader.construct_document(root)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a character that there cannot be: "\\U00110000"
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise RequestError(f"{source}{where}: not valid YAML: {_reason(error)}") from error
    folder = None if folder == Path() else folder
    return Document(name=name, source=source, text=text, content=content, lines=lines, folder=folder)


def _reason(error: Exception) -> str:
    """The problem in one line."""
    return " ".join(str(getattr(error, "problem", None) or error).split())


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
    """A value as it would be read from a study file: `0.3`, `[1, 2]`, `{name: pgd, eps: 0.3}`.

    Raises:
        RequestError: It cannot be read, or is beyond a limit of study files.
    """
    try:
        return yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise RequestError(f"cannot read the value {quote(text)}: {_reason(error)}") from error
