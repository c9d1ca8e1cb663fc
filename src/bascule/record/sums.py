"""Every file of a record has its SHA-256 beside it, in `NAME.sha256`, as `sha256sum --check` reads it.

The sum is put in place before the file: a process killed between the two leaves the sum of the file to come and, in a
comment, that of the file that is there, and either is right. A file without a sum, of an earlier version or written by
hand, is taken as it is.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.core.fingerprint import file_digest
from bascule.record.holding import refuse_taken_over

_BEFORE = "# before: "
_TRIES = 3
"""How often a file and its sum are read before they are said to differ: both may be replaced in between."""


class DamagedError(RequestError):
    """A file of a record is not what was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"cannot read {path}: {why}")
        self.path, self.why = path, why

    @property
    def reason(self) -> str:
        """Why it is taken for damaged."""
        return self.why.removeprefix("it is damaged: ")

    def __reduce__(self) -> tuple[object, ...]:
        return DamagedError, (self.path, self.why)


def write_summed(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file of a record, atomically, with its sum.

    Args:
        path: The file.
        write: Writes the content to the path that it is given.

    Raises:
        RequestError: Another process has taken over what this one held to write it.
    """
    refuse_taken_over(path)

    def with_sum(temporary: Path) -> None:
        write(temporary)
        today, known = file_digest(temporary), sums_of(path)
        lines = [f"{today}  {path.name}"]
        if path.is_file() and (old := file_digest(path)) != today and (not known or old in known):
            lines.append(f"{_BEFORE}{old}")
        text = "\n".join(lines) + "\n"
        write_atomically(sum_file(path), lambda beside: beside.write_text(text, encoding="utf-8"))

    write_atomically(path, with_sum)


def sum_file(path: Path) -> Path:
    """Where the sum of a file is kept."""
    return path.with_name(f"{path.name}.sha256")


def sums_of(path: Path) -> tuple[str, ...]:
    """What the sum of a file may be; none where none is kept. The file itself need not be there."""
    try:
        lines = sum_file(path).read_bytes().decode("utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(line.removeprefix(_BEFORE).partition(" ")[0] for line in lines) or ("",)


def add_sum(path: Path) -> None:
    """Take a file of an earlier version, which has no sum, as it is."""
    text = f"{file_digest(path)}  {path.name}\n"
    write_atomically(sum_file(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_checked(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DamagedError: Its sum is another one.
        FileNotFoundError: There is none.
    """
    content = b""

    def digest() -> str:
        nonlocal content
        content = path.read_bytes()
        return hashlib.sha256(content).hexdigest()

    _compare(path, digest)
    return content


def check_sum(path: Path) -> None:
    """As `read_checked`, of a file that is too large to be read at once."""
    _compare(path, lambda: file_digest(path))


def _compare(path: Path, digest: Callable[[], str]) -> None:
    for again in reversed(range(_TRIES)):
        try:
            if _right(path, digest()):
                return
        except OSError as error:
            if error.errno != errno.ESTALE or not again:  # another machine replaced it while it was read
                raise
    raise DamagedError(path, f"it is damaged: its SHA-256 is not the one in {sum_file(path).name}")


def set_aside(path: Path, ending: str = "damaged") -> Path:
    """Rename a file that is of no use any more, so that it is made again; nothing that was set aside is lost."""
    place, number = path.with_name(f"{path.name}.{ending}"), 1
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}.{number}.{ending}")
    path.rename(place)
    return place


def _right(path: Path, digest: str) -> bool:
    sums = sums_of(path) if sum_file(path).is_file() else ()
    return not sums or digest in sums
