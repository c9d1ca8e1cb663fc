"""Who works on a run folder: one process alone, or parts of it side by side; and on each cell one process at a time.

```
runs/<study>/.lock                       whoever works on the run alone; a part only while it begins
runs/<study>/.parts/.lock                the part that is beginning: one at a time
runs/<study>/.parts/2-of-4.lock          a part, as long as it works
runs/<study>/cells/<fingerprint>/.lock   whoever writes into the folder of this cell
```

Beside each, in a file `.holder`, stands who it is (`record.holding`). The system lets go of a lock when its process
ends, however it does.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bascule.core.errors import RequestError
from bascule.core.progress import nothing
from bascule.core.text import count
from bascule.record.holding import (
    HeldError,
    find_unseen,
    hold,
    holder_of,
    is_held,
    is_taken,
    lock_of,
    remove_left,
    who_has,
)

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
    _refuse_unseen(folder)
    if part is not None:
        with _lock_part(folder, command, part) as let_others_begin:
            yield let_others_begin
        return
    with _taken(folder / ".lock", folder, command, f"{folder}"):
        if at_work := parts_at_work(folder):
            raise RequestError(refusal(at_work, folder))
        _refuse_unseen(folder)
        yield nothing


@contextmanager
def _lock_part(folder: Path, command: str, part: Part) -> Iterator[Callable[[], object]]:
    place = folder / ".parts"
    place.mkdir(exist_ok=True)
    with ExitStack() as door:
        beginning = (
            f"{place / '.lock'} was held for {_PATIENCE:.0f} s by another part that is beginning: is it stopped?"
        )
        door.enter_context(_taken(place / ".lock", place, command, f"{folder}", patience=_PATIENCE, busy=beginning))
        # Parts begin one after another, and so what is held now is held by somebody who works alone.
        door.enter_context(_taken(folder / ".lock", place, command, f"{folder}", patience=_GLANCE))
        if others := parts_at_work(folder, lambda other: other.of != part.of):
            raise RequestError(f"this is {part}, but {refusal(others, folder)}")
        with _taken(_part_file(folder, part), folder, command, f"{part} of {folder}"):
            _refuse_unseen(folder)
            yield door.close


def parts_at_work(folder: Path, which: Callable[[Part], bool] = lambda _: True) -> list[tuple[Part, str]]:
    """The parts of the run in `folder` that are being worked on now, of those asked about, and by whom."""
    found = [_PART.fullmatch(path.name) for path in sorted((folder / ".parts").glob("*.lock"))]
    numbers = [(int(match[1]), int(match[2])) for match in found if match]
    parts = [Part(number, of) for number, of in numbers if number <= of]
    held = [part for part in parts if which(part) and is_taken(_part_file(folder, part))]
    return [(part, who_has(_part_file(folder, part))) for part in held]


def is_locked(folder: Path) -> bool:
    """Whether another process, or another part of this one, works on the run in `folder` alone."""
    return is_taken(folder / ".lock")


def _part_file(folder: Path, part: Part) -> Path:
    return folder / ".parts" / f"{part.number}-of-{part.of}.lock"


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


def _refuse_unseen(folder: Path) -> None:
    """See that whoever works on the run or its cells has locks that are seen from here.

    Called before, so that all that others have left is watched at once, and again when this process can be seen
    itself: of two that begin at the same time, one sees the other.

    Raises:
        RequestError: Somebody has not.
    """
    holders = [*folder.glob(".holder"), *folder.glob(".parts/*.holder"), *folder.glob("cells/*/.holder")]
    if unseen := find_unseen(lock_of(holder) for holder in holders):
        raise RequestError(_unseen(unseen, f"{folder}"))


def _unseen(lock: Path, what: str) -> str:
    return (
        f"{who_has(lock)} works on {what}: it keeps saying so in {holder_of(lock)}, but its lock is not seen here. On "
        "this file system locks are each machine's own, or there are none, and nothing would keep two processes from "
        "one model. Use a folder whose locks all machines see (NFS from version 4, Lustre with `flock`, GlusterFS), or "
        "one process at a time"
    )


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
    try:
        own = hold(folder / ".lock", folder, patience=patience)
    except HeldError:
        yield False
        return
    try:
        yield True
    finally:
        own.release()


def clear_lock(folder: Path) -> None:
    """Remove what a process of this machine that has ended left in the folder of a cell, so that nobody on another one
    need watch it."""
    if holder_of(folder / ".lock").exists():
        remove_left(folder / ".lock")


def is_cell_locked(folder: Path) -> bool:
    """Whether somebody writes into the folder of a cell, or might, until that is clear."""
    return is_held(folder / ".lock")


# --- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def _taken(lock: Path, over: Path, command: str, what: str, *, patience: float = 0, busy: str = "") -> Iterator[None]:
    """Hold a lock, over what is in a folder.

    Raises:
        RequestError: Somebody has it, still after so many seconds.
    """
    try:
        own = hold(lock, over, command, patience=patience, decide=True)
    except HeldError as error:
        seen = busy or _refused(who_has(lock), what)
        raise RequestError(_unseen(lock, what) if error.unseen else seen) from None
    if not own.lockable:
        problem = (
            "files cannot be locked on this file system: of two processes on one run one is refused late, if at all"
        )
        warnings.warn(problem, stacklevel=2)
    try:
        yield
    finally:
        own.release()
