"""What was found out about large files, kept until one of them changes: to read them all takes minutes.

It lies in `~/.cache/bascule/files` and is never needed: where nothing can be kept it is found out anew each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.core.files import write_atomically
from bascule.data._files import is_hashed, reading
from bascule.data.contract import cache_folder

_VERSION = 1
"""Raised whenever the same files give something else."""

Arrays = dict[str, NDArray[Any]]


def remembered(what: str, files: Sequence[Path], find_out: Callable[[], Arrays]) -> Arrays:
    """What `find_out` finds out about these files; kept where they are large, told from others by their places, sizes
    and times of change.

    Args:
        what: Which of the things there are to find out, with all settings that it depends on.
        files: What it is about, in order.
        find_out: Gives arrays of numbers or texts.
    """
    known = []
    for path in files:
        with reading(path, "file"):
            known.append((path, path.stat()))
    if is_hashed(sum(state.st_size for _, state in known)):
        return find_out()
    key = hashlib.sha256(f"{_VERSION}\0{what}\0{len(files)}".encode())
    for path, state in known:
        key.update(f"\0{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}".encode(errors="surrogateescape"))
    place = cache_folder() / "files" / f"{key.hexdigest()[:32]}.npz"
    # Not there, or damaged in whatever way.
    with suppress(Exception), place.open("rb") as file, np.load(file, allow_pickle=False) as kept:
        return {name: kept[name] for name in kept.files}
    found = find_out()
    with suppress(OSError):
        write_atomically(place, lambda temporary: _write(temporary, found))
    return found


def _write(path: Path, arrays: Any) -> None:
    with path.open("wb") as file:  # `savez` would add an ending to a name
        np.savez(file, **arrays)
