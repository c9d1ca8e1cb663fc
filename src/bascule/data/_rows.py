"""Compressed pictures in tables, read where they are wanted: a row group of parquet files, a row of Arrow files."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from bascule.core.errors import RequestError
from bascule.data._arrow import ArrowFile
from bascule.data._files import reading

HELD = 2**28
"""Most bytes of row groups that are held for the next pictures; one group is held whatever it takes."""
LARGE = 2**28
"""Bytes of a row group above which a word is said of it."""

Cells: TypeAlias = "pa.Array | pa.ChunkedArray"


@dataclass(frozen=True)
class _Group:
    """Rows that are read together."""

    path: Path
    first: int
    """Row of the file that it begins with."""
    rows: int
    nbytes: int
    """Memory that it takes once read; 0: it lies in mapped memory."""
    read: Callable[[], Cells]


class Rows:
    """The pictures of a split.

    Args:
        files: Parquet or Arrow files.
        columns: For each file, the column that holds the bytes; `name.bytes` inside a struct.

    Raises:
        RequestError: A file is damaged.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        self._groups: list[_Group] = []
        for path, column in zip(files, columns, strict=True):
            with reading(path, kind_of(path)):
                self._groups += _mapped(path, column) if is_arrow(path) else _row_groups(path, column)
        if largest := max((group for group in self._groups if group.nbytes > LARGE), key=_nbytes, default=None):
            warnings.warn(
                f"{largest.path}: row groups of up to {largest.nbytes / 2**20:,.0f} MiB, each read whole for one "
                "picture of it; write the files with smaller ones (row_group_size=100), or as Arrow files",
                stacklevel=2,
            )
        self._starts = [0]
        for group in self._groups:
            self._starts.append(self._starts[-1] + group.rows)
        self._held: OrderedDict[int, Cells] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return self._starts[-1]

    def take(self, places: Sequence[int]) -> Sequence[bytes]:
        """The pictures in these rows, counted through all files. Each group is gone to once."""
        found: dict[int, bytes] = {}
        number, cells = -1, None
        for place in sorted(set(places)):
            if cells is None or place >= self._starts[number + 1]:
                number = self._number(place)
                cells = self._cells(number)
            content = cells[place - self._starts[number]].as_py()
            if not content:
                raise empty(self.name(place))
            found[place] = content
        return [found[place] for place in places]

    heads = take

    def name(self, place: int) -> str:
        number = self._number(place)
        group = self._groups[number]
        return row_name(group.path, group.first + place - self._starts[number])

    def _number(self, place: int) -> int:
        return bisect_right(self._starts, place) - 1

    def _cells(self, number: int) -> Cells:
        group = self._groups[number]
        if not group.nbytes:
            return group.read()
        with self._lock:
            if number in self._held:
                self._held.move_to_end(number)
                return self._held[number]
        with reading(group.path, kind_of(group.path)):
            cells = group.read()
        with self._lock:
            self._held[number] = cells
            while len(self._held) > 1 and sum(one.nbytes for one in self._held.values()) > HELD:
                self._held.popitem(last=False)
        return cells


def _nbytes(group: _Group) -> int:
    return group.nbytes


def _row_groups(path: Path, column: str) -> list[_Group]:
    metadata = pq.ParquetFile(path).metadata
    found, first = [], 0

    def read(number: int) -> Cells:
        # A file of its own: several threads read, and one file is for one of them.
        with pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True) as file:
            table = file.read_row_group(number, columns=[column], use_threads=False)
        return _bytes(table.column(0))

    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        parts = (group.column(place) for place in range(group.num_columns))
        sizes = {part.path_in_schema: part.total_uncompressed_size for part in parts}
        if group.num_rows:
            found.append(_Group(path, first, group.num_rows, max(1, sizes.get(column, 0)), partial(read, number)))
        first += group.num_rows
    return found


def _mapped(path: Path, column: str) -> list[_Group]:
    found, first = [], 0
    for batch in ArrowFile(path).iter_batches(2**31, [column]):
        cells = _bytes(batch.column(0))
        if len(cells):
            found.append(_Group(path, first, len(cells), 0, partial(_itself, cells)))
        first += len(cells)
    return found


def _itself(cells: Cells) -> Cells:
    return cells


def _bytes(cells: Cells) -> Cells:
    """The bytes of the pictures, out of the struct that may be around them."""
    if isinstance(cells, pa.ChunkedArray):
        return pa.chunked_array([_bytes(chunk) for chunk in cells.chunks], None if cells.num_chunks else pa.binary())
    return cells.field("bytes") if pa.types.is_struct(cells.type) else cells


def is_arrow(path: Path) -> bool:
    """Whether it is no parquet file."""
    return path.suffix == ".arrow"


def kind_of(path: Path) -> str:
    """What the file should be, for messages."""
    return f"{'Arrow' if is_arrow(path) else 'parquet'} file"


def row_name(path: Path, row: int) -> str:
    """What to call a picture in messages."""
    return f"{path}: row {row}"


def empty(name: str) -> RequestError:
    """What to say of a row without a picture."""
    return RequestError(f"{name}: no picture bytes; write the file with the bytes embedded")
