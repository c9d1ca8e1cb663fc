"""What is lost or damaged is made again, and the table is what it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bascule.running.make
from bascule.record.cell import CellRecord
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import Ran, run_plan

OVERRIDES = (
    "data.max_train=150",
    "data.max_test=40",
    "train.epochs=1",
    "attack=[{name: fgsm, eps: 0.1}]",
    "rows.Adv. training.filter=spectral-signatures",
    "rows.Adv. training.train.objective=standard",
    "rows.None.inspect=spectral-signatures",
    "measure=[accuracy, robust-accuracy, asr, asr-twin, filter-auroc]",
)
FILES = (
    "cell.json", "model.safetensors", "outcomes.parquet", "curve.jsonl", "findings/inspect-*.npz",
    "findings/filter-made.npz", "artefacts/poison.parquet", "artefacts/trigger.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def plan(plan_of):
    return plan_of(*OVERRIDES, seeds=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, plan, run_here) -> RunRecord:
    """A run with a file of every kind; tests must not write into it."""
    run = RunRecord(tmp_path_factory.mktemp("made") / "tiny")
    assert run_here(plan, run).failures == ()
    return run


@pytest.fixture
def run(made: RunRecord, tmp_path: Path) -> RunRecord:
    return RunRecord(Path(shutil.copytree(made.path, tmp_path / "run")))


def table(run: RunRecord) -> list[dict]:
    return [row.as_dict() for row in read_rows(RunRecord(run.path))]


def again(plan, run: RunRecord) -> tuple[Ran, list[str]]:
    import torch

    said: list[str] = []
    ran = run_plan(plan, RunRecord(run.path), device=torch.device("cpu"), roots=(), warn=said.append)
    return ran, said


def one_of(run: RunRecord, pattern: str) -> Path:
    return sorted((run.path / "cells").glob(f"*/{pattern}"))[0]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


DAMAGES = [flip, truncate, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=["flip", "truncate", "delete"])
def test_every_file_is_made_again(damage: Callable[[Path], None], run: RunRecord, made: RunRecord, plan) -> None:
    paths = [one_of(run, pattern) for pattern in FILES]
    for path in paths:
        damage(path)
    ran, said = again(plan, run)
    assert ran.failures == ()
    assert table(run) == table(made)
    assert all(path.is_file() for path in paths)
    if damage is not Path.unlink:
        assert all(path.with_name(f"{path.name}.damaged").is_file() for path in paths)
        assert [text for text in said if "set aside" in text] == said
        assert all(any(str(path) in text for text in said) for path in paths)
    assert again(plan, run) == (Ran(0, ()), [])
    cell = one_of(run, "curve.jsonl").parent.name
    curves = ([entry["loss"] for entry in where.cell(cell).curve()] for where in (run, made))
    assert next(curves) == next(curves)


@pytest.mark.parametrize("pattern", FILES)
def test_whoever_mended_a_file_does_not_call_it_damaged_afterwards(pattern: str, run: RunRecord, plan) -> None:
    flip(one_of(run, pattern))
    again(plan, run)
    assert not any(flag.startswith("damaged") for row in read_rows(run) for flag in row.flags)


def test_files_of_two_cells_that_were_swapped_are_found(run: RunRecord, made: RunRecord, plan) -> None:
    one, other, *_ = sorted((run.path / "cells").glob("*/outcomes.parquet"))
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)
    assert any("damaged" in flag for row in table(run) for flag in row["flags"])
    again(plan, run)
    assert table(run) == table(made)


def test_a_plan_that_is_damaged_is_written_again(run: RunRecord, made: RunRecord, plan) -> None:
    flip(run.plan_file)
    ran, said = again(plan, run)
    assert ran.cells == 0
    assert "study.json" in said[0]
    assert table(run) == table(made)


def test_no_training_is_repeated_for_what_needs_none(
    run: RunRecord, made: RunRecord, plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bascule.running.make, "train", None)
    for pattern in FILES:
        if not pattern.startswith("model"):
            for path in (run.path / "cells").glob(f"*/{pattern}"):
                path.unlink()
    assert again(plan, run)[0].failures == ()
    assert table(run) == table(made)
    info = CellRecord(one_of(run, "cell.json").parent).info()
    assert info["data"]["train"] == 150
    assert info.get("commit") is None  # of the training nobody knows it any more


def test_answers_of_another_model_do_not_stay(run: RunRecord, made: RunRecord, plan) -> None:
    """Made again elsewhere, a model may be other bytes: here its sum is not known either."""
    model = one_of(run, "model.safetensors")
    model.unlink()
    model.with_name("model.safetensors.sha256").unlink()
    again(plan, run)
    assert (model.parent / "outcomes.parquet.of-another-model").is_file()
    assert table(run) == table(made)


def test_a_checkpoint_that_is_damaged_is_set_aside(tmp_path: Path) -> None:
    import torch

    from bascule.running.make import _CheckpointFile

    kept = _CheckpointFile(tmp_path / "checkpoint.pt")
    kept.save({"step": 3, "weights": torch.ones(50)})
    assert kept.load()["step"] == 3
    for number, damage in enumerate([flip, truncate], start=1):
        kept.save({"step": 3, "weights": torch.ones(50)})
        damage(tmp_path / "checkpoint.pt")
        with pytest.warns(UserWarning, match=r"checkpoint\.pt.*damaged.*begins anew"):
            assert kept.load() is None
        assert len(list(tmp_path.glob("*.damaged"))) == number
