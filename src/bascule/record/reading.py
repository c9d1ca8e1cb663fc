"""Files of a record, each read once as long as nobody replaces it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Readings:
    """What was read from files, kept until a file is replaced; a record is only ever replaced whole."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], Any]] = {}

    def read(self, path: Path, parse: Callable[[Path], T]) -> T | None:
        """What `parse` makes of the file, or what it made of it before; None where there is no file."""
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._known.pop(path, None)
            return None
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._known.get(path)
        if known is None or known[0] != seen:
            known = self._known[path] = (seen, parse(path))
        value: T = known[1]
        return value

    def __reduce__(self) -> tuple[type[Readings], tuple[()]]:
        return Readings, ()  # another process reads for itself
