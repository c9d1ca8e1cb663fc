"""Files of a record, each checked against its sum and read once as long as nobody replaces it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bascule.core.errors import RequestError
from bascule.record.sums import DamagedError, read_checked

T = TypeVar("T")
FORMAT = 1
"""Of `study.json` and `cell.json`."""
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From each earlier format to the next one: what `study.json` or `cell.json` says in the words of the next."""


class Seen(NamedTuple):
    """What tells a file from the one that takes its place."""

    inode: int
    written: int
    """When, in nanoseconds."""
    size: int


class Readings:
    """What was read from files, kept until a file is replaced; a record is only ever replaced whole."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Seen, Any]] = {}
        self._damaged: dict[Path, DamagedError] = {}

    def read(self, path: Path, parse: Callable[[bytes], T]) -> T | None:
        """What `parse` makes of the file's content, or what it made of it before; None where there is no file.

        Raises:
            DamagedError: The file is not what was written: its sum is another one, or `parse` fails.
            RequestError: It cannot be read, or is of another version.
        """
        today = seen(path)
        if today is None:
            self._known.pop(path, None)
            self._damaged.pop(path, None)
            return None
        known = self._known.get(path)
        if known is None or known[0] != today:
            known = self._known[path] = (today, _outcome(path, parse))
            self._damaged.pop(path, None)
            if isinstance(known[1], DamagedError):
                self._damaged[path] = known[1]
        if isinstance(known[1], RequestError):
            raise known[1]
        value: T | None = known[1]
        return value

    def read_sound(self, path: Path, parse: Callable[[bytes], T]) -> T | None:
        """As `read`; None also where the file is damaged, which `damaged` then tells."""
        try:
            return self.read(path, parse)
        except DamagedError:
            return None

    def damaged(self, folder: Path) -> list[DamagedError]:
        """What is known to be damaged below a folder, of the files that were read and have not been replaced since."""
        for path in [path for path in self._damaged if seen(path) != self._known[path][0]]:
            del self._damaged[path], self._known[path]
        return [error for path, error in self._damaged.items() if path.is_relative_to(folder)]

    def __reduce__(self) -> tuple[type[Readings], tuple[()]]:
        return Readings, ()  # another process reads for itself


def seen(path: Path) -> Seen | None:
    """What tells the file from the one that takes its place; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Seen(status.st_ino, status.st_mtime_ns, status.st_size)


def _outcome(path: Path, parse: Callable[[bytes], Any]) -> Any:
    """What `parse` makes of the file, or the error that whoever asks shall get; None where the file has gone."""
    try:
        return parse(read_checked(path))
    except FileNotFoundError:
        return None
    except RequestError as error:
        return error
    except OSError as error:
        return RequestError(f"cannot read {path}: {error.strerror or error}")
    except Exception as error:
        # Whatever a parser stumbles over: files without a sum are found damaged only in this way.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return DamagedError(path, f"it is damaged: {reason[:200]}")


def parse_json(content: bytes) -> Any:
    """Plain values from JSON.

    Raises:
        ValueError: It is none.
    """
    return json.loads(content.decode("utf-8"))


def parse_formatted(path: Path) -> Callable[[bytes], dict[str, Any]]:
    """What reads `study.json` or `cell.json`, of this format or an earlier one."""
    return functools.partial(_formatted, path)


def _formatted(path: Path, content: bytes) -> dict[str, Any]:
    values = parse_json(content)
    if not isinstance(values, Mapping):
        raise TypeError(f"expected a mapping, got {type(values).__name__}")
    values = dict(values)
    given = values.get("format", FORMAT)
    if not isinstance(given, int) or isinstance(given, bool) or given > FORMAT:
        raise RequestError(
            f"{path} has format {given!r}; this version reads {FORMAT}. A newer version wrote it: use that"
        )
    for number in range(given, FORMAT):
        if number not in _MIGRATIONS:
            raise RequestError(f"{path} has format {given!r}; this version reads {FORMAT}")
        values = _MIGRATIONS[number](values)
    return values
