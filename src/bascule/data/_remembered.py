"""What was found out about large files, kept until one of them changes: to read them all takes minutes.

It lies in `~/.cache/bascule/files` and is never needed: where nothing can be kept it is found out anew each time.
"""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.core.files import write_atomically
from bascule.data._files import is_hashed, reading
from bascule.data.contract import cache_folder

_VERSION = 2
"""Raised whenever the same files give something else."""
MOST_BYTES, MOST_FILES = 2**31, 256
"""What is kept at most, of all sets together; what was used least recently goes first."""
SETTLED = 2 * 10**9
"""Nanoseconds that files must have been left alone before they are looked into, or nothing is kept: a clock that ticks
coarsely gives the next change the same time."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Stated:
    """Files as a look at their folder gives them, in order: whatever is changed, added, removed or renamed shows."""

    names: Sequence[str]
    """Where each lies, whole; or the folder of all, then each below it."""
    states: NDArray[np.int64]
    """Of each file, the three numbers of `state_of`, shape (N, 3)."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each file."""
        return self.states[:, 0]


def state_of(state: os.stat_result) -> tuple[int, int, int]:
    """Bytes of a file, when its content and when anything of it was changed, in nanoseconds.

    The last time cannot be set by anybody, so that a copy made with the old times is not taken for the file.
    """
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def as_states(numbers: array[int]) -> NDArray[np.int64]:
    """What `state_of` gave, file after file, as `Stated.states`."""
    return np.array(numbers, np.int64).reshape(-1, 3)


def stated(files: Sequence[Path]) -> Stated:
    """The files as they are now.

    Raises:
        RequestError: One cannot be looked at.
    """
    numbers = array("q")
    for path in files:
        with reading(path, "file"):
            numbers.extend(state_of(path.stat()))
    return Stated([str(path.absolute()) for path in files], as_states(numbers))


def remembered(what: str, files: Stated, find_out: Callable[[], Arrays]) -> Arrays:
    """What `find_out` finds out about these files; kept where they are large, told from others by their places, sizes
    and times of change.

    Several processes may ask at once; each then finds it out, and what one keeps is whole.

    Args:
        what: Which of the things there are to find out, with all settings that it depends on.
        files: What it is about.
        find_out: Gives arrays of numbers or texts.
    """
    if is_hashed(int(files.sizes.sum())):
        return find_out()
    key = hashlib.sha256(f"{_VERSION}\0{what}\0{len(files.states)}\0".encode())
    key.update("\0".join(files.names).encode(errors="surrogateescape"))
    key.update(files.states.tobytes())
    place = cache_folder() / "files" / f"{key.hexdigest()[:32]}.npz"
    # Not there, or damaged in whatever way.
    with suppress(Exception), place.open("rb") as file, np.load(file, allow_pickle=False) as kept:
        found = {name: kept[name] for name in kept.files}
        with suppress(OSError):
            os.utime(place)
        return found
    began = time.time_ns()
    found = find_out()
    if int(files.states[:, 1:].max()) < began - SETTLED:
        with suppress(OSError):
            write_atomically(place, lambda temporary: _write(temporary, found))
            _make_room(place.parent)
    return found


def _write(path: Path, arrays: Any) -> None:
    with path.open("wb") as file:  # `savez` would add an ending to a name
        np.savez(file, **arrays)


def _make_room(folder: Path) -> None:
    """Remove what was used least recently, as far as there is too much."""
    with os.scandir(folder) as entries:
        kept = sorted(((entry.stat(), entry.path) for entry in entries), key=lambda one: -one[0].st_mtime_ns)
    total = 0
    for number, (state, path) in enumerate(kept, start=1):
        total += state.st_size
        if number > 1 and (number > MOST_FILES or total > MOST_BYTES):
            with suppress(OSError):  # another process was quicker
                Path(path).unlink()
