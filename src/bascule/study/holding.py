"""One process at a time works on a run folder: two would do everything twice and lose some of what the other wrote."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bascule.core.errors import RequestError

_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextmanager
def held(folder: Path, command: str) -> Iterator[None]:
    """Work on the run in `folder` alone, from here or from processes that this one sends there.

    The kernel lets go when the process ends, however it does.

    Raises:
        RequestError: Another process works on it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_file(folder), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _locked(descriptor):
            who = os.pread(descriptor, 4096, 0).decode(errors="replace") or "another process"
            raise RequestError(
                f"{who} works on {folder}. Wait until it ends, or stop it (what it has finished is kept), "
                "or give another folder with --runs"
            )
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        who = f"process {os.getpid()} on {platform.node()} (since {since}: {' '.join(command.split())})"
        os.ftruncate(descriptor, 0)  # what a killed process left
        os.pwrite(descriptor, who.encode(errors="backslashreplace"), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether another process, or another part of this one, works on the run in `folder`."""
    try:
        descriptor = os.open(_file(folder), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)


def _file(folder: Path) -> Path:
    return folder / ".lock"


def _locked(descriptor: int) -> bool:
    """Lock the file until it is closed; False when it is locked already."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        problem = "files cannot be locked on this file system: nothing keeps two processes from working on one run"
        warnings.warn(problem, stacklevel=2)
    return True
