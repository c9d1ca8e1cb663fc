"""Writing files so that nobody ever meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from bascule.core.errors import RequestError


def check_writable(folder: Path) -> None:
    """Make the folder, and see that files can be written there: before the work that would be lost.

    Raises:
        RequestError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", lambda temporary: temporary.touch())
        (folder / ".writable").unlink(missing_ok=True)  # somebody else may be looking too
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
