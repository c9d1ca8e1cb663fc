"""One process at a time works on a run folder: two would do everything twice and lose some of what the other wrote."""

from __future__ import annotations

import errno
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically

_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextmanager
def lock_run(folder: Path, command: str) -> Iterator[None]:
    """Work on the run in `folder` alone, from here or from processes that this one sends there.

    The system lets go when the process ends, however it does.

    Raises:
        RequestError: Another process works on it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = _lock(folder), folder / ".holder"
    if not _taken(lock):
        try:
            who = holder.read_text(errors="replace")
        except FileNotFoundError:
            who = "another process"
        raise RequestError(
            f"{who} works on {folder}. Wait until it ends, or stop it (what it has finished is kept), "
            "or give another folder with `runs`"
        )
    try:
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        who = f"process {os.getpid()} on {platform.node()} (since {since}: {' '.join(command.split())})"
        write_atomically(holder, lambda temporary: temporary.write_text(who, errors="backslashreplace"))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether another process, or another part of this one, works on the run in `folder`."""
    lock = _lock(folder)
    if not Path(lock.lock_file).is_file():
        return False
    try:
        taken = _taken(lock)
    except OSError:
        return False  # somebody else's run, which may be read and not be locked from here
    lock.release()
    return not taken


def _lock(folder: Path) -> BaseFileLock:
    return FileLock(folder / ".lock", timeout=0)


def _taken(lock: BaseFileLock) -> bool:
    """Take the lock; False when somebody has it."""
    try:
        lock.acquire()
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        problem = "files cannot be locked on this file system: nothing keeps two processes from working on one run"
        warnings.warn(problem, stacklevel=2)
    return True
