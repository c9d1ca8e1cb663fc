"""What whoever holds the lock of a run or a cell does before the work: set aside damage, clear away leftovers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bascule.core.host import is_running
from bascule.record.cell import CellRecord
from bascule.record.lock import lock_cell
from bascule.record.run import RunRecord
from bascule.record.sums import DamagedError, add_sum, check_sum, set_aside, sum_file

_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}")
"""What `core.files.write_atomically` calls its files until they are whole."""
_UNDER_LOCK = (".study.json.", ".evaluation.json.", "..holder.")
"""What these are called of what is written into a run folder, and not into its cells, by whoever holds its lock."""


def mend_run(run: RunRecord) -> list[DamagedError]:
    """Set the plan aside where it is damaged, and what is asked beside it.

    Returns:
        What was damaged.

    Raises:
        RequestError: A newer version wrote it.
    """
    damaged = []
    for path, read in ((run.plan_file, run.plan), (run.asked_file, run.asked)):
        try:
            if path.is_file():
                read()
                _seal(path)
        except DamagedError as error:
            set_aside(path)
            damaged.append(error)
    return damaged


def mend_cell(cell: CellRecord) -> list[DamagedError]:
    """Read everything that is kept of a cell and set aside what is damaged; what has no sum yet gets one.

    Returns:
        What was damaged. It is lost, and made again like anything that is not there.

    Raises:
        RequestError: A file cannot be read, or a newer version wrote it.
    """
    cell.info(), cell.curve(), cell.picture(), cell.poisoned(), cell.done(), cell.losses()
    list(cell.answers().findings)
    damaged = [*cell.damaged(), *_checked(cell.model_file, _check_model), *_checked(cell.checkpoint_file)]
    for error in damaged:
        set_aside(error.path)
    for path in _files(cell):
        _seal(path)
    return damaged


def _files(cell: CellRecord) -> Iterator[Path]:
    yield from (cell.info_file, cell.model_file, cell.outcomes_file, cell.curve_file)
    yield from cell.findings.glob("[!.]*.npz")
    yield from cell.losses_folder.glob("[!.]*.npz")
    yield from (cell.picture_file, cell.poison_file)


def _seal(path: Path) -> None:
    if path.is_file() and not sum_file(path).is_file():
        add_sum(path)


def _checked(path: Path, check: Callable[[Path], Any] | None = None) -> Iterator[DamagedError]:
    """The damage of a file that is too large to be read whole."""
    if not path.is_file():
        return
    try:
        check_sum(path)
        if check is not None:
            check(path)
    except DamagedError as error:
        yield error


def _check_model(path: Path) -> None:
    """Whether a safetensors file is whole: its header says how long it is.

    Raises:
        DamagedError: It is not.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
            end = max((part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise DamagedError(path, "it is damaged: it has no header of a safetensors file") from error
    if path.stat().st_size != 8 + length + end:
        raise DamagedError(
            path, f"it is damaged: it is {path.stat().st_size:,} bytes long, and {8 + length + end:,} were written"
        )


def clear_leftovers(folder: Path, *, alone: bool = True) -> None:
    """Remove what killed processes left in a run folder: files that were not whole yet, and their names.

    The plan is written by whoever holds the lock of the run. Pages are written without it, so that theirs go only when
    the process has ended, which only somebody who is alone there can tell: parts work on several machines, and clear
    the cells that they take.
    """
    for path, process in [*_unfinished(folder.glob(".*")), *_unfinished(folder.glob(".parts/.*"))]:
        if path.name.startswith(_UNDER_LOCK) or path.parent != folder or (alone and not is_running(process)):
            path.unlink(missing_ok=True)
    if alone:
        (folder / ".writable").unlink(missing_ok=True)
        for cell in folder.glob("cells/*"):
            if any(_unfinished(cell.glob("**/.*"))):
                with lock_cell(cell):
                    clear_cell(cell)


def clear_cell(folder: Path) -> None:
    """The same in the folder of a cell, whose lock is held."""
    for path, _ in list(_unfinished(folder.glob("**/.*"))):
        path.unlink(missing_ok=True)


def _unfinished(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    """Those that were not whole yet, with the process that wrote them."""
    for path in paths:
        if match := _TEMPORARY.fullmatch(path.name):
            yield path, int(match[1])
