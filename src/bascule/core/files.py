"""Writing files so that nobody ever meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from bascule.core.errors import RequestError


def readable(path: Path) -> str:
    """A path in a sentence: as it was given, but whole where it is only dots, which would end the sentence."""
    return str(path if path.name.strip(".") else path.absolute().resolve())


def check_writable(folder: Path) -> None:
    """See that files can be written to a folder, or to where it will be made: before the work that would be lost.

    What is written later makes the folder. A request that comes to nothing leaves none behind.

    Raises:
        RequestError: They cannot.
    """
    try:
        there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        write_atomically(there / ".writable", lambda temporary: temporary.touch())
        (there / ".writable").unlink()
    except OSError as error:
        raise RequestError(f"cannot write to the folder {folder}: {error.strerror}. Give another one") from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, force it to disk, then put it in place in one step.

    A link at `path` is replaced, not followed: in a record that somebody sent it may lead anywhere.

    Raises:
        RequestError: A device or a pipe is there, which is not to be replaced.
        OSError: It cannot be written; what was there before is there still.
    """
    if not path.is_symlink() and path.exists() and not (path.is_file() or path.is_dir()):
        raise RequestError(f"{path} is a device or a pipe, which cannot be replaced; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files can be read by their owner only, and records and reports are there to be shared.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None:  # the system's, not a library's own words
            error.filename = str(path)  # not the temporary one, or none: what the message is about
        raise
    finally:
        with contextlib.suppress(OSError):  # the error of writing says more
            temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
