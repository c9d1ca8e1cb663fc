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
column is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.measure import MISSING, Labels

FORMAT = 1
FILTERED = "filter:made"
"""Key of what the filter of a cell's own recipe said of the training set."""

Radii = NDArray[np.float64]
Column = Labels | Radii


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


@dataclass(frozen=True)
class OutcomeTable:
    """One entry per test image: `id`, `label`, and one array per evaluation."""

    id: Labels
    label: Labels
    columns: dict[str, Labels]
    """Predicted labels, MISSING where not evaluated."""
    radii: dict[str, Radii]
    """Certified radii, NaN where not evaluated."""


@dataclass(frozen=True)
class Finding:
    """What an evaluation found that is not one value per test image."""

    arrays: dict[str, NDArray[Any]]
    info: dict[str, Any]
    """Kind, settings, seconds, and numbers of its own."""


class CellRecord:
    """The folder of one cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info_file = path / "cell.json"
        self.model_file = path / "model.safetensors"
        self.outcomes_file = path / "outcomes.parquet"
        self.curve_file = path / "curve.jsonl"
        self.checkpoint_file = path / "checkpoint.pt"
        self.artefacts = path / "artefacts"
        self.findings = path / "findings"

    @property
    def trained(self) -> bool:
        """Whether the model is there; it is the last file a training writes."""
        return self.model_file.is_file()

    def info(self) -> dict[str, Any]:
        """`cell.json`, or an empty mapping when there is none yet."""
        return dict(read_json(self.info_file)) if self.info_file.is_file() else {}

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
        if not self.curve_file.is_file():
            return []
        return [json.loads(line) for line in self.curve_file.read_text(encoding="utf-8").splitlines()]

    def done(self) -> frozenset[str]:
        """Keys of the evaluations that are recorded."""
        found = set(self._finding_keys())
        if self.outcomes_file.is_file():
            found |= set(pq.read_schema(self.outcomes_file).names) - {"id", "label"}
        return frozenset(found)

    def _finding_keys(self) -> list[str]:
        return [path.stem.replace("-", ":", 1) for path in self.findings.glob("[!.]*.npz")]

    def _finding_file(self, key: str) -> Path:
        return self.findings / f"{key.replace(':', '-')}.npz"

    def add_finding(self, key: str, arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> None:
        """Keep or replace arrays under `key`, with `info` beside them."""
        text = np.array(json.dumps(dict(info), ensure_ascii=False))

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, info=text, **arrays)  # type: ignore[arg-type]

        write_atomically(self._finding_file(key), write)

    def finding(self, key: str) -> Finding | None:
        """What is kept under `key`, or None."""
        file = self._finding_file(key)
        if not file.is_file():
            return None
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files if name != "info"}
            return Finding(arrays, json.loads(str(content["info"])))

    def outcomes(self) -> OutcomeTable:
        """All recorded predictions; empty when there are none."""
        if not self.outcomes_file.is_file():
            return OutcomeTable(_no_labels(), _no_labels(), {}, {})
        table = pq.read_table(self.outcomes_file)
        floats = {field.name for field in table.schema if pa.types.is_floating(field.type)}
        labels = {
            name: np.asarray(table.column(name).fill_null(MISSING).to_numpy(), dtype=np.int64)
            for name in table.column_names
            if name not in floats
        }
        radii = {name: np.asarray(table.column(name).to_numpy(), dtype=np.float64) for name in floats}
        return OutcomeTable(labels.pop("id"), labels.pop("label"), labels, radii)

    def outcomes_of(self, columns: Mapping[str, Sequence[str]]) -> OutcomeTable | None:
        """Outcomes on the test images of a plan, given its columns; a cell may hold those of a larger test set too.

        None before the clean evaluation is done.
        """
        table = self.outcomes()
        clean = table.columns.get(columns["clean"][0])
        if clean is None:
            return None
        used = np.flatnonzero(clean != MISSING)
        return OutcomeTable(
            table.id[used],
            table.label[used],
            {name: values[used] for name, values in table.columns.items()},
            {name: values[used] for name, values in table.radii.items()},
        )

    def add_outcomes(self, ids: Labels, labels: Labels, values: Column, *, key: str, info: Mapping[str, Any]) -> None:
        """Add or replace the column `key`; `info` is kept beside it. Images not known yet add rows."""
        old = self.outcomes()
        all_ids = np.union1d(old.id, ids)
        old_places, new_places = np.searchsorted(all_ids, old.id), np.searchsorted(all_ids, ids)

        def spread(*parts: tuple[NDArray[np.intp], Column]) -> Column:
            kind = parts[0][1].dtype
            column: Any = np.full(len(all_ids), np.nan if kind == np.float64 else MISSING, dtype=kind)
            for places, part in parts:
                column[places] = part
            return column

        columns = {name: spread((old_places, part)) for name, part in (old.columns | old.radii).items()}
        columns[key] = spread((new_places, values))
        fields = self._column_info() | {key: json.dumps(dict(info), ensure_ascii=False)}
        arrays = {"id": all_ids, "label": spread((old_places, old.label), (new_places, labels)), **columns}
        schema = pa.schema(
            [
                pa.field(
                    name,
                    pa.from_numpy_dtype(values.dtype),
                    metadata={"evaluation": fields[name]} if name in fields else None,
                )
                for name, values in arrays.items()
            ]
        )
        table = pa.Table.from_arrays(
            [pa.array(values, mask=_is_missing(values)) for values in arrays.values()], schema=schema
        )
        write_atomically(self.outcomes_file, lambda temporary: pq.write_table(table, temporary, compression="zstd"))

    def _column_info(self) -> dict[str, str]:
        if not self.outcomes_file.is_file():
            return {}
        schema = pq.read_schema(self.outcomes_file)
        return {
            f.name: f.metadata[b"evaluation"].decode() for f in schema if f.metadata and b"evaluation" in f.metadata
        }

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """What is kept beside each evaluation: kind, settings, seconds. Safe while the cell is being evaluated."""
        found = {name: json.loads(text) for name, text in self._column_info().items()}
        for key in set(self._finding_keys()) - found.keys():
            with np.load(self._finding_file(key), allow_pickle=False) as content:
                found[key] = json.loads(str(content["info"]))  # the arrays stay where they are
        return found


def _no_labels() -> Labels:
    return np.empty(0, dtype=np.int64)


def _is_missing(values: Column) -> NDArray[np.bool_]:
    return np.isnan(values) if values.dtype == np.float64 else values == MISSING
