"""The record of a cell: one folder per cell, written atomically, read without torch.

```
runs/<study>/study.json                  the plan: rows, seeds, and which cells and columns they stand for
runs/<study>/cells/<fingerprint>/
    cell.json                            settings, versions, commit, host, times; or why the cell failed
    model.safetensors                    the trained model
    outcomes.parquet                     one row per test image, one column per evaluation
    findings/<key>.npz                   what evaluations found that is not about test images one by one
    curve.jsonl                          one line per epoch
    checkpoint.pt                        only while training
    artefacts/                           poisoned indices, trigger pictures
```

What is done is read from these files alone: a cell is trained when its model is there, an evaluation is done when its
column is. A file that was read is read again only when it has been replaced.
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

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.measure import MISSING, Labels
from bascule.record.answers import Answers, Column, Finding
from bascule.record.plan import RecordedCell
from bascule.record.reading import Readings

FORMAT = 1
FILTERED = "filter:made"
"""Key of what the filter of a cell's own recipe said of the training set."""


def write_json(path: Path, content: Any) -> None:
    """Write plain values as JSON, atomically; NaN is refused since JSON has none."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # File names with undecodable bytes reach us as lone surrogates, which UTF-8 cannot hold.
    data = text.encode("utf-8", errors="backslashreplace")
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def read_json(path: Path) -> Any:
    """The content of a JSON file of ours.

    Raises:
        RequestError: Missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error


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
        self.findings = path / "findings"
        self._readings = Readings() if readings is None else readings

    @property
    def trained(self) -> bool:
        """Whether the model is there; it is the last file a training writes."""
        return self.model_file.is_file()

    def info(self) -> dict[str, Any]:
        """`cell.json`, or an empty mapping when there is none yet."""
        return dict(self._readings.read(self.info_file, read_json) or {})

    def failure(self) -> str | None:
        """Why the last try failed, or None."""
        failure = self.info().get("failure")
        return None if failure is None else str(failure["message"])

    def write_info(self, content: Mapping[str, Any]) -> None:
        """Replace `cell.json`."""
        write_json(self.info_file, {"format": FORMAT, **content})

    def write_curve(self, curve: Sequence[Mapping[str, float]]) -> None:
        """Replace the training curve."""
        text = "".join(json.dumps(entry) + "\n" for entry in curve)
        write_atomically(self.curve_file, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def curve(self) -> list[dict[str, float]]:
        """One entry per finished epoch."""
        return self._readings.read(self.curve_file, _read_curve) or []

    def picture(self) -> bytes | None:
        """The PNG file kept with the poison: test images as they are, and below them the same with the trigger."""
        return self._readings.read(self.artefacts / "trigger.png", Path.read_bytes)

    def base(self) -> CellRecord | None:
        """The cell whose model was made into this one by a repair, or by a filter and another training."""
        base = self.info().get("base")
        return CellRecord(self.path.parent / str(base), self._readings) if base else None

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
        return None if clean is None else answers.at(np.flatnonzero(clean != MISSING))

    def add_outcomes(self, ids: Labels, labels: Labels, values: Column, *, key: str, info: Mapping[str, Any]) -> None:
        """Add or replace the column `key`; `info` is kept beside it. Images not known yet add rows."""
        old = self._columns()
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
        write_atomically(self.outcomes_file, lambda temporary: pq.write_table(table, temporary, compression="zstd"))

    def add_finding(self, key: str, arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> None:
        """Keep or replace arrays under `key`, with `info` beside them."""
        text = np.array(json.dumps(dict(info), ensure_ascii=False))

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, info=text, **arrays)  # type: ignore[arg-type]

        write_atomically(self._finding_file(key), write)

    def finding(self, key: str) -> Finding | None:
        """What is kept under `key`, or None."""
        return self._readings.read(self._finding_file(key), _read_finding)

    def evaluations(self) -> Mapping[str, Mapping[str, Any]]:
        """What is kept beside each evaluation: kind, settings, seconds. Safe while the cell is being evaluated."""
        return self.answers().notes

    def _columns(self) -> Answers:
        nothing = np.empty(0, dtype=np.int64)
        return self._readings.read(self.outcomes_file, _read_columns) or Answers(id=nothing, label=nothing)

    def _finding_keys(self) -> list[str]:
        return sorted(path.stem.replace("-", ":", 1) for path in self.findings.glob("[!.]*.npz"))

    def _finding_file(self, key: str) -> Path:
        return self.findings / f"{key.replace(':', '-')}.npz"


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
        return iter(self._record._finding_keys())

    def __len__(self) -> int:
        return len(self._record._finding_keys())


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


def _read_curve(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _read_finding(path: Path) -> Finding:
    with np.load(path, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files if name != "info"}
        return Finding(arrays, json.loads(str(content["info"])))


def _read_columns(path: Path) -> Answers:
    table = pq.read_table(path)
    floats = {field.name for field in table.schema if pa.types.is_floating(field.type)}
    labels = {
        name: np.asarray(table.column(name).fill_null(MISSING).to_numpy(), dtype=np.int64)
        for name in table.column_names
        if name not in floats
    }
    radii = {name: np.asarray(table.column(name).to_numpy(), dtype=np.float64) for name in floats}
    notes = {
        field.name: json.loads(field.metadata[b"evaluation"])
        for field in table.schema
        if field.metadata and b"evaluation" in field.metadata
    }
    return Answers(id=labels.pop("id"), label=labels.pop("label"), predictions=labels, radii=radii, notes=notes)


def _is_missing(values: Column) -> NDArray[np.bool_]:
    return np.isnan(values) if values.dtype == np.float64 else values == MISSING
