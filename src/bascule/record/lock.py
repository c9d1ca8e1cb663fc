"""Who works on a run folder: one process alone, or parts of it side by side; and on each cell one process at a time.

```
runs/<study>/.lock                       whoever works on the run alone; a part only while it begins
runs/<study>/.parts/.lock                the part that is beginning: one at a time
runs/<study>/.parts/2-of-4.lock          a part, as long as it works
runs/<study>/cells/<fingerprint>/.lock   whoever writes into the folder of this cell
```

Beside the first and the third, in a file `.holder`, stands who it is. The system lets go of a lock when its process
ends, however it does.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.core.progress import nothing
from bascule.core.text import count

_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_PATIENCE = 120.0
"""Seconds that a part waits for others that are beginning, each of which takes far less than one."""
_GLANCE = 2.0
"""Seconds after which a lock that is held is not one that somebody only looks at."""
_PART = re.compile(r"([1-9]\d*)-of-(\d+)\.lock")


@dataclass(frozen=True)
class Part:
    """One of several processes that share the cells of a run.

    Raises:
        RequestError: There is no such part.
    """

    number: int
    """From 1."""
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            problem = f"expected I of N with I from 1 to N, got {self.number} of {self.of}"
            raise RequestError(f"{problem}; where an index begins at 0, add 1 to it", place=("part",))

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}"


# --- a run -----------------------------------------------------------------------------------------------------------


@contextmanager
def lock_run(folder: Path, command: str, part: Part | None = None) -> Iterator[Callable[[], object]]:
    """Work on the run in `folder` alone, or as one of several parts; from here or from processes that this one sends.

    Yields:
        What a part calls when it has read and written the plan: until then, no other part begins.

    Raises:
        RequestError: Another process works on it, or on the same part of it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if part is not None:
        with _lock_part(folder, command, part) as let_others_begin:
            yield let_others_begin
        return
    with _taken(folder / ".lock", _busy(folder / ".holder", folder)):
        if at_work := parts_at_work(folder):
            raise RequestError(refusal(at_work, folder))
        with _named(folder / ".holder", command):
            yield nothing


@contextmanager
def _lock_part(folder: Path, command: str, part: Part) -> Iterator[Callable[[], object]]:
    place = folder / ".parts"
    place.mkdir(exist_ok=True)
    with ExitStack() as door:
        beginning = f"{place / '.lock'} was held for {_PATIENCE:.0f} s by another part that is beginning"
        door.enter_context(_taken(place / ".lock", lambda: f"{beginning}: is it stopped?", patience=_PATIENCE))
        # Parts begin one after another, and so what is held now is held by somebody who works alone.
        door.enter_context(_taken(folder / ".lock", _busy(folder / ".holder", folder), patience=_GLANCE))
        door.enter_context(_named(folder / ".holder", command))
        if others := parts_at_work(folder, lambda other: other.of != part.of):
            raise RequestError(f"this is {part}, but {refusal(others, folder)}")
        own = _part_file(folder, part)
        holder = own.with_suffix(".holder")
        with _taken(own, _busy(holder, folder, part)), _named(holder, command):
            yield door.close


def parts_at_work(folder: Path, which: Callable[[Part], bool] = lambda _: True) -> list[tuple[Part, str]]:
    """The parts of the run in `folder` that are being worked on now, of those asked about, and by whom."""
    found = [_PART.fullmatch(path.name) for path in sorted((folder / ".parts").glob("*.lock"))]
    numbers = [(int(match[1]), int(match[2])) for match in found if match]
    parts = [Part(number, of) for number, of in numbers if number <= of]
    held = [part for part in parts if which(part) and _is_held(_part_file(folder, part))]
    return [(part, _who(_part_file(folder, part).with_suffix(".holder"))) for part in held]


def is_locked(folder: Path) -> bool:
    """Whether another process, or another part of this one, works on the run in `folder` alone."""
    return _is_held(folder / ".lock")


def _part_file(folder: Path, part: Part) -> Path:
    return folder / ".parts" / f"{part.number}-of-{part.of}.lock"


def _busy(holder: Path, folder: Path, part: Part | None = None) -> Callable[[], str]:
    """What to say when a lock is held."""
    what = f"{folder}" if part is None else f"{part} of {folder}"
    return lambda: _refused(_who(holder), what)


def refusal(at_work: list[tuple[Part, str]], folder: Path) -> str:
    """What to say when parts are at work and nobody else may be, or no such part."""
    (part, who), *more = at_work
    others = f", and {count(len(more), 'more part')} at the same time" if more else ""
    return _refused(who, f"{part} of {folder}{others}")


def _refused(who: str, what: str) -> str:
    return (
        f"{who} works on {what}. Wait until it ends, or stop it (what it has finished is kept), "
        "or give another folder with `runs`"
    )


@contextmanager
def _named(holder: Path, command: str) -> Iterator[None]:
    """Say in a file who holds the lock beside it."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    who = f"process {os.getpid()} on {platform.node()} (since {since}: {' '.join(command.split())})"
    try:
        write_atomically(holder, lambda temporary: temporary.write_text(who, errors="backslashreplace"))
        yield
    finally:
        holder.unlink(missing_ok=True)


def _who(holder: Path) -> str:
    try:
        return holder.read_text(errors="replace")
    except FileNotFoundError:
        return "another process"


# --- a cell ----------------------------------------------------------------------------------------------------------


@contextmanager
def lock_cell(folder: Path, *, patience: float = -1) -> Iterator[bool]:
    """Write into the folder of a cell while nobody else does.

    Args:
        folder: The folder, which is made.
        patience: Seconds to wait for whoever does; for as long as it takes if negative.

    Yields:
        Whether it may be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=patience)
    taken = _take(lock) is not False  # where nothing can be locked, whoever works on the run has said so
    try:
        yield taken
    finally:
        lock.release()


def is_cell_locked(folder: Path) -> bool:
    """Whether somebody writes into the folder of a cell."""
    return _is_held(folder / ".lock")


# --- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def _taken(path: Path, busy: Callable[[], str], *, patience: float = 0) -> Iterator[None]:
    """Hold a lock.

    Raises:
        RequestError: Somebody has it, still after so many seconds.
    """
    lock = FileLock(path, timeout=patience)
    taken = _take(lock)
    if taken is False:
        raise RequestError(busy())
    if taken is None:
        problem = "files cannot be locked on this file system: nothing keeps two processes from working on one run"
        warnings.warn(problem, stacklevel=2)
    try:
        yield
    finally:
        lock.release()


def _is_held(path: Path) -> bool:
    if not path.is_file():
        return False
    lock = FileLock(path, timeout=0)
    try:
        taken = _take(lock)
    except OSError:
        return False  # somebody else's run, which may be read and not be locked from here
    lock.release()
    return taken is False


def _take(lock: BaseFileLock) -> bool | None:
    """Take a lock; False when somebody has it, None where the file system has no locks."""
    try:
        lock.acquire()
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True
