"""The files of a record, carried between a folder here and one on a machine that shares none with this one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bascule.core.files import write_atomically
from bascule.record.cell import CellRecord
from bascule.record.reading import Seen, seen
from bascule.record.sums import DamagedError, read_checked, sum_file, sums_of, write_summed


@dataclass(frozen=True)
class Kept:
    """What a file holds."""

    content: bytes
    digest: str | None
    """Its SHA-256, as kept beside it; None of a file without, such as one that was set aside."""


@dataclass(frozen=True)
class Changes:
    """What has changed in a cell's folder."""

    files: Mapping[str, Kept] = field(default_factory=dict)
    """New and replaced ones by their path in the folder, in the order in which they were last written; but first what
    tells of the cell, which was there before the model."""
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.gone)

    def carry_out(self, folder: Path) -> None:
        """Do the same here; each file is put in place in one step, with its sum.

        Raises:
            DamagedError: A file is not what was sent.
            OSError: It cannot be written; what was there is there still.
        """
        for name, kept in self.files.items():
            path = folder / name
            if kept.digest is None:
                write_atomically(path, lambda temporary, kept=kept: temporary.write_bytes(kept.content))  # type: ignore[misc]
            elif hashlib.sha256(kept.content).hexdigest() != kept.digest:
                raise DamagedError(path, "it was damaged on its way from a worker")
            else:
                write_summed(path, lambda temporary, kept=kept: temporary.write_bytes(kept.content))  # type: ignore[misc]
        for name in self.gone:
            for path in (folder / name, sum_file(folder / name)):
                path.unlink(missing_ok=True)


def whole(folder: Path) -> Changes:
    """All that a cell's folder holds, to continue the cell elsewhere."""
    return _Folder(folder).changes()


def needed(record: CellRecord) -> Changes:
    """What others need of a cell that is done: not how far its training once was, nor what was looked at along it."""
    left_out = {record.checkpoint_file.name, record.losses_folder.name}
    return Changes(
        {name: kept for name, kept in whole(record.path).files.items() if Path(name).parts[0] not in left_out}
    )


class Mirror:
    """What changes in a cell's folder from now on. To be asked by the thread that writes there."""

    def __init__(self, folder: Path) -> None:
        self._folder = _Folder(folder)
        self._folder.changes()

    def changes(self) -> Changes:
        """Since the last time.

        Raises:
            DamagedError: A file is not what was written.
        """
        return self._folder.changes()


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Seen] = {}

    def changes(self) -> Changes:
        files = (path for path in self._path.rglob("[!.]*") if path.suffix != ".sha256" and path.is_file())
        marks = ((path.relative_to(self._path).as_posix(), seen(path)) for path in files)
        now = {name: mark for name, mark in marks if mark is not None}
        info = CellRecord(self._path).info_file.name
        new = sorted((name != info, mark.written, name) for name, mark in now.items() if self._known.get(name) != mark)
        gone = tuple(name for name in self._known if name not in now)
        self._known = now
        return Changes({name: _kept(self._path / name) for *_, name in new}, gone)


def _kept(path: Path) -> Kept:
    content = read_checked(path)
    return Kept(content, hashlib.sha256(content).hexdigest() if sums_of(path) else None)
