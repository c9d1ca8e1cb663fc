"""The record: atomic, complete by itself, and readable without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.metrics.contract import MISSING
from bascule.record.answers import Answers
from bascule.record.cell import CellRecord, write_json
from bascule.record.run import RunRecord, open_run
from records import plan_of_rows


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def broken(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, broken)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_never_reaches_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_evaluations_are_columns_added_one_by_one(tmp_path: Path) -> None:
    record = CellRecord(tmp_path)
    assert record.done() == frozenset()
    record.add_outcomes(ints(5, 1, 3), ints(0, 1, 2), ints(0, 1, 1), key="clean:a", info={"kind": "clean"})
    record.add_outcomes(ints(1, 3, 5), ints(1, 2, 0), ints(7, MISSING, 7), key="attack:b", info={"seconds": 1.5})
    table = record.answers()
    assert table.id.tolist() == [1, 3, 5]
    assert table.label.tolist() == [1, 2, 0]
    assert table.predictions["clean:a"].tolist() == [1, 1, 0]
    assert table.predictions["attack:b"].tolist() == [7, MISSING, 7]
    assert record.done() == {"clean:a", "attack:b"}
    assert record.evaluations() == {"clean:a": {"kind": "clean"}, "attack:b": {"seconds": 1.5}}


def test_a_larger_test_set_adds_rows_and_keeps_what_is_known(tmp_path: Path) -> None:
    record = CellRecord(tmp_path)
    record.add_outcomes(ints(2), ints(4), ints(4), key="clean:small", info={})
    record.add_outcomes(ints(1, 2, 3), ints(3, 4, 5), ints(0, 4, 5), key="clean:large", info={})
    table = record.answers()
    assert table.id.tolist() == [1, 2, 3]
    assert table.label.tolist() == [3, 4, 5]
    assert table.predictions["clean:small"].tolist() == [MISSING, 4, MISSING]


def test_a_run_is_found_by_folder_or_by_study_name(tmp_path: Path) -> None:
    RunRecord(tmp_path / "paper" / "mnist").write_plan(plan_of_rows())
    assert open_run("paper/mnist", tmp_path).path == tmp_path / "paper" / "mnist"
    assert open_run(str(tmp_path / "paper" / "mnist"), Path("elsewhere")).plan().rows == ()
    with pytest.raises(RequestError, match="paper/mnist"):
        open_run("digits", tmp_path)
    with pytest.raises(RequestError, match="There are no runs"):
        open_run("digits", tmp_path / "empty")


def test_a_damaged_or_newer_plan_is_refused(tmp_path: Path) -> None:
    run = RunRecord(tmp_path)
    run.plan_file.write_text("{")
    with pytest.raises(RequestError, match="cannot read"):
        run.plan()
    run.plan_file.write_text(json.dumps({"format": 99}))
    with pytest.raises(RequestError, match="has format 99; this version reads 1"):
        run.plan()


def test_the_record_of_a_cell_holds_what_it_promises(finished: RunRecord) -> None:
    record = finished.cell(finished.plan().rows[1].seeds[0].cell.fingerprint)
    info = record.info()
    assert info["settings"]["train"]["objective"]["steps"] == 2
    assert info["settings"]["train"]["batch_size"] == 50
    assert info["given"]["train"]["objective"] == {"name": "pgd", "eps": 0.1, "steps": 2}
    assert info["data"]["train"] == 300
    assert set(info["versions"]) == {"bascule", "python", "torch", "numpy"}
    assert {"commit", "host", "command", "started", "seconds"} <= set(info)
    assert [entry["epoch"] for entry in record.curve()] == [1, 2]
    assert not record.checkpoint_file.exists()


def test_the_poisoned_images_are_kept_and_are_of_the_target_class(finished: RunRecord) -> None:
    import pyarrow.parquet as pq

    record = finished.cell(finished.plan().rows[0].seeds[0].cell.fingerprint)
    table = pq.read_table(record.artefacts / "poison.parquet")
    assert len(table) == record.info()["poisoned"] > 0
    assert set(table["labels_before"].to_pylist()) == set(table["labels_after"].to_pylist()) == {7}
    assert (record.artefacts / "trigger.png").read_bytes().startswith(b"\x89PNG")


def test_a_twin_has_no_poison(finished: RunRecord) -> None:
    twin = finished.plan().rows[0].seeds[0].twin
    assert twin is not None
    record = finished.cell(twin.fingerprint)
    assert record.info()["poisoned"] == 0
    assert record.info()["settings"]["poison"] is None
    assert not record.artefacts.exists()


def test_radii_are_kept_as_they_are(tmp_path: Path) -> None:
    record = CellRecord(tmp_path)
    record.add_outcomes(ints(1, 2), ints(0, 1), ints(0, 1), key="clean:a", info={})
    record.add_outcomes(ints(2, 3), ints(1, 1), np.array([0.25, 0.0]), key="certify:b", info={})
    radii = record.answers().radii["certify:b"]
    assert np.isnan(radii[0])
    assert radii[1:].tolist() == [0.25, 0.0]
    assert record.answers().predictions["clean:a"].tolist() == [0, 1, MISSING]


def test_the_plain_name_finds_the_only_scale(tmp_path: Path) -> None:
    RunRecord(tmp_path / "a-fast").write_plan(plan_of_rows(study="a"))
    RunRecord(tmp_path / "a-b").write_plan(plan_of_rows(study="a-b"))
    assert open_run("a-b", tmp_path).path.name == "a-b"
    with pytest.raises(RequestError, match="a-b, a-fast"):
        open_run("a", tmp_path)
    (tmp_path / "a-b" / "study.json").unlink()
    assert open_run("a", tmp_path).path.name == "a-fast"


def test_evaluations_are_read_while_one_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = CellRecord(tmp_path)
    record.add_outcomes(ints(1, 2), ints(0, 1), ints(0, 1), key="clean:a", info={"kind": "clean"})
    record.add_finding("scan:b", {"x": np.zeros(1)}, {"kind": "scan"})
    read = CellRecord._columns

    def then_more_is_there(cell: CellRecord) -> Answers:
        monkeypatch.undo()
        found = read(cell)
        cell.add_outcomes(ints(1, 2), ints(0, 1), ints(0, 0), key="attack:c", info={"kind": "attack"})
        return found

    monkeypatch.setattr(CellRecord, "_columns", then_more_is_there)
    assert record.evaluations() == {"clean:a": {"kind": "clean"}, "scan:b": {"kind": "scan"}}
    assert set(record.evaluations()) == {"clean:a", "attack:c", "scan:b"}


def test_reading_answers_loads_no_pandas(tmp_path: Path) -> None:
    record = CellRecord(tmp_path)
    record.add_outcomes(np.array([1, 2]), np.array([0, 1]), np.array([0, MISSING]), key="clean:1", info={})
    record.add_outcomes(np.array([1, 2]), np.array([0, 1]), np.array([0.5, np.nan]), key="certify:1", info={})
    check = "assert 'pandas' not in sys.modules, 'pandas'"
    read = f"from pathlib import Path; answers = CellRecord(Path({str(tmp_path)!r})).answers()"
    values = "assert [list(answers.predictions['clean:1']), answers.radii['certify:1'][0]] == [[0, -1], 0.5]"
    statements = f"import sys; from bascule.record.cell import CellRecord; {read}; {values}; {check}"
    subprocess.run([sys.executable, "-c", statements], check=True)
