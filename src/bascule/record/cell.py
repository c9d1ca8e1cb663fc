"""The record of a cell: one folder per cell, written atomically, read without torch.

```
runs/<study>/study.json                  the plan: rows, seeds, and which cells and columns they stand for
runs/<study>/cells/<fingerprint>/
    cell.json                            settings, versions, commit, host, times; or why the cell failed
    model.safetensors                    the trained model
    outcomes.parquet                     one row per test image, one column per evaluation
    findings/<key>.npz                   what evaluations found that is not about test images one by one
    curve.jsonl                          one line per epoch, with what `probe` saw after it
    losses/<epoch>.npz                   loss of each training image then, where `probe` asks for it
    checkpoint.pt                        only while training
    artefacts/                           poisoned indices, trigger pictures
    NAME.sha256                          beside every file: its sum (`record.sums`)
```

What is done is read from these files alone: a cell is trained when its model is there, an evaluation is done when its
column is. A file that was read is read again only when it has been replaced. One that is damaged is to readers as if it
were not there, and `damaged` tells of it; whoever holds the lock of the run sets it aside and makes it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bascule.metrics.contract import MISSING, Labels
from bascule.record.answers import Answers, Column, Finding
from bascule.record.arrays import read_arrays
from bascule.record.plan import RecordedCell, plain_name
from bascule.record.reading import FORMAT, Readings, parse_formatted
from bascule.record.sums import DamagedError, set_aside, sum_file, sums_of, write_summed

FILTERED = "filter:made"
"""Key of what the filter of a cell's own recipe said of the training set."""
ISOLATED = "filter:isolated"
"""Key of what the training itself isolated of its training set."""
COVERS = "covers"
"""Under which the list of poisoned images notes the ids of those that are stamped and kept their label."""


def write_json(path: Path, content: Any) -> None:
    """Write plain values as JSON, atomically; NaN is refused since JSON has none."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # File names with undecodable bytes reach us as lone surrogates, which UTF-8 cannot hold.
    data = text.encode("utf-8", errors="backslashreplace")
    write_summed(path, lambda temporary: temporary.write_bytes(data))


class CellRecord:
    """The folder of one cell."""

    def __init__(self, path: Path, readings: Readings | None = None) -> None:
        self.path = path
        self.info_file = path / "cell.json"
        self.model_file = path / "model.safetensors"
        self.outcomes_file = path / "outcomes.parquet"
        self.curve_file = path / "curve.jsonl"
        self.checkpoint_file = path / "checkpoint.pt"
        self.artefacts = path / "artefacts"
        self.poison_file = self.artefacts / "poison.parquet"
        self.picture_file = self.artefacts / "trigger.png"
        self.findings = path / "findings"
        self.losses_folder = path / "losses"
        self._readings = Readings() if readings is None else readings
        self._finding_files: dict[str, Path] = {}

    @property
    def trained(self) -> bool:
        """Whether the model is there; it is the last file a training writes."""
        return self.model_file.is_file()

    def info(self) -> dict[str, Any]:
        """`cell.json`, or an empty mapping when there is none yet."""
        return dict(self._readings.read_sound(self.info_file, self._parse_info) or {})

    def _parse_info(self, content: bytes) -> dict[str, Any]:
        return _checked_info(parse_formatted(self.info_file)(content))

    def damaged(self) -> list[DamagedError]:
        """What is damaged of the files that were read so far."""
        return self._readings.damaged(self.path)

    def finished(self) -> bool:
        """Whether all questions of a plan were answered once; so they count as of a record that does not say."""
        info = self.info()
        return info.get("finished", True) is not None if info else self.outcomes_file.is_file()

    def failure(self) -> str | None:
        """Why the last try failed, or None."""
        failure = self.info().get("failure")
        return None if failure is None else str(failure["message"])

    def write_info(self, content: Mapping[str, Any]) -> None:
        """Replace `cell.json`."""
        write_json(self.info_file, {"format": FORMAT, **content})

    def forget_other_models(self, digest: str) -> None:
        """Set the answers of an earlier model aside before one with this SHA-256 takes its place.

        A model that was lost and made again is the same bytes where it is trained as it was; elsewhere its answers are
        others.
        """
        if digest in sums_of(self.model_file):
            return
        made = (self._finding_file(FILTERED), self._finding_file(ISOLATED))
        for path in [self.outcomes_file, *(path for path in self.findings.glob("[!.]*.npz") if path not in made)]:
            if path.is_file():
                set_aside(path, "of-another-model")

    def remove_checkpoint(self) -> None:
        """The training has ended."""
        for path in (self.checkpoint_file, sum_file(self.checkpoint_file)):
            path.unlink(missing_ok=True)

    def write_curve(self, curve: Sequence[Mapping[str, float]]) -> None:
        """Replace the training curve."""
        text = "".join(json.dumps(entry) + "\n" for entry in curve)
        write_summed(self.curve_file, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def curve(self) -> list[dict[str, float]]:
        """One entry per finished epoch."""
        return self._readings.read_sound(self.curve_file, _read_curve) or []

    def write_losses(self, epoch: int, ids: NDArray[np.int64], losses: NDArray[Any]) -> None:
        """Keep or replace the loss of each training image, by id, after this epoch (from 1): three digits of it."""
        rounded = np.minimum(losses, np.finfo(np.float16).max).astype(np.float16)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, id=ids, loss=rounded)

        write_summed(self.losses_folder / f"{epoch}.npz", write)

    def losses(self) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """By epoch, rising, ids of training images and their losses; empty where nobody looked."""
        epochs = sorted(int(path.stem) for path in self.losses_folder.glob("[!.]*.npz"))
        read = {epoch: self._readings.read_sound(self.losses_folder / f"{epoch}.npz", _read_losses) for epoch in epochs}
        return {epoch: losses for epoch, losses in read.items() if losses is not None}

    def picture(self) -> bytes | None:
        """The PNG file kept with the poison: test images as they are, and below them the same with the trigger."""
        return self._readings.read_sound(self.picture_file, bytes)

    def poisoned(self) -> dict[str, list[int]]:
        """The ids of the poisoned training images, with their labels before and after; empty without poison.

        Under `covers`, where there are any, the ids of the images that are stamped and kept their label.
        """
        return self._readings.read_sound(self.poison_file, _read_poison) or {}

    def base(self) -> CellRecord | None:
        """The cell whose model was made into this one by a repair, or by a filter and another training."""
        return self._beside("base")

    def proxy(self) -> CellRecord | None:
        """The cell on whose model its poison was prepared or searched for."""
        return self._beside("proxy")

    def _beside(self, key: str) -> CellRecord | None:
        name = self.info().get(key)
        return CellRecord(self.path.parent / str(name), self._readings) if name else None

    def done(self) -> frozenset[str]:
        """Keys of the questions whose answers are recorded."""
        answers = self._columns()
        return frozenset({*answers.predictions, *answers.radii, *self._finding_keys()})

    def answers(self) -> Answers:
        """All recorded answers; on no images when there are none."""
        columns = self._columns()
        findings = _Findings(self)
        return Answers(
            id=columns.id,
            label=columns.label,
            predictions=columns.predictions,
            radii=columns.radii,
            findings=findings,
            notes=_Notes(columns.notes, findings),
        )

    def answers_to(self, cell: RecordedCell) -> Answers | None:
        """Answers on the test images of a plan; a cell may hold those of a larger test set too.

        None before the clean evaluation is done.
        """
        answers = self.answers()
        clean = answers.predictions.get(cell.of("clean")[0].key)
        if clean is None:
            return None
        asked = clean != MISSING
        return answers if asked.all() else answers.at(np.flatnonzero(asked))

    def add_outcomes(self, ids: Labels, labels: Labels, values: Column, *, key: str, info: Mapping[str, Any]) -> None:
        """Add or replace the column `key`; `info` is kept beside it. Images not known yet add rows."""
        old = self._columns()
        if any(error.path == self.outcomes_file for error in self.damaged()):
            set_aside(self.outcomes_file)
        all_ids = np.union1d(old.id, ids)
        old_places, new_places = np.searchsorted(all_ids, old.id), np.searchsorted(all_ids, ids)

        def spread(*parts: tuple[NDArray[np.intp], Column]) -> Column:
            kind = parts[0][1].dtype
            column: Any = np.full(len(all_ids), np.nan if kind == np.float64 else MISSING, dtype=kind)
            for places, part in parts:
                column[places] = part
            return column

        known: dict[str, Column] = {**old.predictions, **old.radii}
        columns = {name: spread((old_places, part)) for name, part in known.items()}
        columns[key] = spread((new_places, values))
        notes = {name: json.dumps(dict(note), ensure_ascii=False) for name, note in {**old.notes, key: info}.items()}
        arrays = {"id": all_ids, "label": spread((old_places, old.label), (new_places, labels)), **columns}
        schema = pa.schema(
            [
                pa.field(
                    name,
                    pa.from_numpy_dtype(values.dtype),
                    metadata={"evaluation": notes[name]} if name in notes else None,
                )
                for name, values in arrays.items()
            ]
        )
        table = pa.Table.from_arrays(
            [pa.array(values, mask=_is_missing(values)) for values in arrays.values()], schema=schema
        )
        write_summed(self.outcomes_file, lambda temporary: pq.write_table(table, temporary, compression="zstd"))

    def add_finding(self, key: str, arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> None:
        """Keep or replace arrays under `key`, with `info` beside them."""
        text = np.array(json.dumps(dict(info), ensure_ascii=False))

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, info=text, **arrays)  # type: ignore[arg-type]

        write_summed(self._finding_file(key), write)

    def finding(self, key: str) -> Finding | None:
        """What is kept under `key`, or None."""
        return self._readings.read_sound(self._finding_file(key), _read_finding)

    def evaluations(self) -> Mapping[str, Mapping[str, Any]]:
        """What is kept beside each evaluation: kind, settings, seconds. Safe while the cell is being evaluated."""
        return self.answers().notes

    def _columns(self) -> Answers:
        nothing = np.empty(0, dtype=np.int64)
        return self._readings.read_sound(self.outcomes_file, _read_columns) or Answers(id=nothing, label=nothing)

    def _finding_keys(self) -> list[str]:
        return sorted(path.stem.replace("-", ":", 1) for path in self.findings.glob("[!.]*.npz"))

    def _finding_file(self, key: str) -> Path:
        if key not in self._finding_files:  # asked for often, and a path takes its time
            self._finding_files[key] = self.findings / f"{key.replace(':', '-')}.npz"
        return self._finding_files[key]


class _Findings(Mapping[str, Finding]):
    """The findings of a cell, each read when it is asked for."""

    def __init__(self, record: CellRecord) -> None:
        self._record = record

    def __getitem__(self, key: str) -> Finding:
        finding = self._record.finding(key)
        if finding is None:
            raise KeyError(key)
        return finding

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._record._finding_keys() if self._record.finding(key) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Notes(Mapping[str, Mapping[str, Any]]):
    """What is kept beside columns, and beside findings, which are read when they are asked for."""

    def __init__(self, columns: Mapping[str, Mapping[str, Any]], findings: Mapping[str, Finding]) -> None:
        self._columns, self._findings = columns, findings

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        return self._columns[key] if key in self._columns else self._findings[key].info

    def __iter__(self) -> Iterator[str]:
        yield from self._columns
        yield from (key for key in self._findings if key not in self._columns)

    def __len__(self) -> int:
        return sum(1 for _ in self)


# --- reading ---------------------------------------------------------------------------------------------------------

_WHOLE = ("poisoned", "parameters", "seed")
_INFO = {
    **dict.fromkeys(("failure", "data", "host", "versions", "settings"), Mapping),
    **dict.fromkeys(_WHOLE, int),
    "seconds": int | float,
    "base": str,
    "proxy": str,
}
"""Types of entries of `cell.json` that are read, where they are there and not null."""


def _checked_info(info: dict[str, Any]) -> dict[str, Any]:
    for key, kind in _INFO.items():
        if not isinstance(value := info.get(key), kind | None):
            raise TypeError(f"{key!r} holds {type(value).__name__}")
    for other in ("base", "proxy"):
        if info.get(other):
            plain_name(info[other])
    if info.get("failure") is not None:
        str(info["failure"]["message"])
    if "data" in info:
        tuple(map(str, info["data"]["classes"])), tuple(map(int, info["data"]["size"])), int(info["data"]["train"])
    for key in _WHOLE:
        if abs(info.get(key) or 0) >= 2**63:
            raise ValueError(f"{key!r} is beyond the whole numbers of 64 bits")
    return info


def _read_curve(content: bytes) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    if not all(isinstance(entry, dict) for entry in entries):
        raise TypeError("expected a mapping in each line")
    return entries


def _read_poison(content: bytes) -> dict[str, list[int]]:
    table = _read_table(content)
    columns: dict[str, list[int]] = table.to_pydict()
    covers = (table.schema.metadata or {}).get(COVERS.encode())
    return columns if covers is None else columns | {COVERS: list(map(int, json.loads(covers)))}


def _read_finding(stored: bytes) -> Finding:
    arrays = read_arrays(stored)
    return Finding(arrays, json.loads(str(arrays.pop("info"))))


def _read_losses(stored: bytes) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    arrays = read_arrays(stored)
    return arrays["id"], arrays["loss"]


def _read_table(content: bytes) -> pa.Table:
    # Not pq.read_table, which is made for data sets of many files: twice the time for a small one, and it loads pandas.
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def _read_columns(content: bytes) -> Answers:
    table = _read_table(content)
    floats = {field.name for field in table.schema if pa.types.is_floating(field.type)}
    labels = {
        name: _numbers(table.column(name), np.int64, MISSING) for name in table.column_names if name not in floats
    }
    radii = {name: _numbers(table.column(name), np.float64, np.nan) for name in floats}
    notes = {
        field.name: json.loads(field.metadata[b"evaluation"])
        for field in table.schema
        if field.metadata and b"evaluation" in field.metadata
    }
    return Answers(id=labels.pop("id"), label=labels.pop("label"), predictions=labels, radii=radii, notes=notes)


def _numbers(column: pa.ChunkedArray, kind: type[np.generic], missing: float) -> NDArray[Any]:
    """What a column holds, `missing` where it is null. Not by Arrow's `to_numpy`, which loads pandas."""
    part = column.combine_chunks()
    if not (pa.types.is_integer(part.type) or pa.types.is_floating(part.type)):
        raise TypeError(f"expected numbers, got {part.type}")
    valid, stored = part.buffers()
    end = part.offset + len(part)
    values = np.frombuffer(stored, part.type.to_pandas_dtype(), end)[part.offset :].astype(kind, copy=False)
    if not part.null_count:
        return values
    known = np.unpackbits(np.frombuffer(valid, np.uint8), count=end, bitorder="little")[part.offset :]
    return np.where(known.astype(bool), values, kind(missing))


def _is_missing(values: Column) -> NDArray[np.bool_]:
    return np.isnan(values) if values.dtype == np.float64 else values == MISSING
