"""Arrow files as the `datasets` library keeps them, read as parquet files are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa


class ArrowFile:
    """One file in Arrow's streaming or random access format, with what is used of `pyarrow.parquet.ParquetFile`.

    It is mapped into memory, so that columns that are not asked for cost nothing. It can be gone through once.
    """

    def __init__(self, path: Path) -> None:
        self._source = pa.memory_map(str(path))
        magic = self._source.read(6)
        self._source.seek(0)
        ipc = pa.ipc
        self._batches: Iterator[pa.RecordBatch]
        if magic == b"ARROW1":
            file = ipc.open_file(self._source)
            self.schema_arrow: pa.Schema = file.schema
            self._batches = (file.get_batch(i) for i in range(file.num_record_batches))
        else:
            stream = ipc.open_stream(self._source)
            self.schema_arrow = stream.schema
            self._batches = iter(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def iter_batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns, or `name.bytes` for a struct, at most so many rows at a time."""
        names = [name if name in self.schema_arrow.names else name.rpartition(".")[0] for name in columns]
        for chosen in self._selected(names):
            for start in range(0, len(chosen), rows):
                yield chosen.slice(start, rows)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """These columns whole."""
        schema = pa.schema([self.schema_arrow.field(name) for name in columns])
        return pa.Table.from_batches(list(self._selected(columns)), schema=schema)

    def _selected(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            chosen = batch.select(list(names))
            chosen.validate(full=True)  # what is damaged would be read past its end
            yield chosen
