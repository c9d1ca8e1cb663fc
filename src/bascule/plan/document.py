"""Reading a study file: plain settings with the line of every key, nothing accepted in silence."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import yaml

from bascule.core.catalog import describe, plain_number
from bascule.core.errors import RequestError, unknown
from bascule.core.text import quote, steers
from bascule.plan._loading import LARGEST, MAX_DEPTH, Loader

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
    """Line (from 1) of every key, by its path; 0 where the study stands in no file."""
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
        if not _may_be_called(name):
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


def _may_be_called(name: str) -> bool:
    """Whether a study, and so its run folder, may have this name."""
    return bool(name) and not name.startswith(".") and not steers(name)


def study_of(content: Mapping[str, Any], *, name: str) -> Document:
    """A study that stands in no file: what `parse_study` reads of it written as YAML, so that `"8/255"` is a number.

    Args:
        content: As it would stand in a file. Components, tuples and paths are written as a file has them.
        name: What it is called, and its run folder.

    Raises:
        RequestError: It holds what no file can hold, or more than one may; or it cannot be called so.
    """
    if not _may_be_called(name) or len(Path(name).parts) > 1:
        raise RequestError(f"a study is called as a folder may be; got {quote(name)}", place=("name",))
    document = parse_study(written(content) + "\n", name=name, source=f"study {name!r}")
    return replace(document, lines=dict.fromkeys(document.lines, 0))  # nobody sees them


def written(value: Any, *, flow: bool = False) -> str:
    """A value of Python as it stands in a study file; with `flow` on one line.

    Raises:
        RequestError: It is nothing that can stand in one.
    """
    text: str = yaml.dump(
        _plain(value, 0),
        Dumper=_Writer,
        sort_keys=False,
        default_flow_style=flow or None,
        width=2**20,
        allow_unicode=True,
    )
    return text.removesuffix("...\n").strip()


class _Writer(yaml.SafeDumper):
    """Without anchors: what stands twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise RequestError(f"more than {MAX_DEPTH} levels of values inside values")
    if isinstance(value, Mapping):
        return {str(key): _plain(part, depth + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, depth + 1) for part in value]
    value = plain_number(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, PathLike):
        return fspath(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(describe(value), depth)
    if isinstance(value, type):
        raise RequestError(f"{value.__name__} is a class, which no study can hold: make one of it, {value.__name__}()")
    raise RequestError(f"{quote(value)} is {type(value).__name__}, which no study can hold")


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
