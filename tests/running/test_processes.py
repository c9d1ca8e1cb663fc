"""Cells side by side in processes end in the bytes they have alone, and what stops one of them leaves the others be."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pyarrow.parquet
import pytest
import torch
from rich.console import Console

from bascule.core.errors import RequestError
from bascule.core.host import is_running
from bascule.plan.document import parse_study
from bascule.plan.plan import Cell
from bascule.plan.resolve import make_plan
from bascule.record.lock import is_locked
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running import processes
from bascule.running.console import console_progress
from bascule.running.context import RunContext
from bascule.running.run import Ran, run_plan
from bascule.running.waiting import Waiting
from bascule.running.worker import Reached
from bascule.running.workplace import Workplace
from interruptible import PROGRAM

LONG = """\
base:
  data: {name: digits, max_train: 200, max_test: 40}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1, batch_size: 50}
rows:
  Short: {}
  Long: {train: {epochs: 20000}}
  Also long: {train: {epochs: 20001}}
measure: [accuracy]
"""
NETS = """\
import os, signal, sys
from torch import nn
from bascule.core.errors import RequestError

def small(size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1] * size[2], num_classes))

def deadly(size, num_classes):
    print("what the work prints is nobody's answer")
    if os.getpid() != DRIVER:
        os.kill(os.getpid(), signal.SIGKILL)
    return small(size, num_classes)

class Leaving(nn.Sequential):
    def __init__(self, size, num_classes):
        super().__init__(*small(size, num_classes))

    def forward(self, x):
        if os.getpid() != DRIVER:
            sys.exit(3)
        return super().forward(x)

def wrong(size, num_classes):
    if os.getpid() != DRIVER:
        raise RequestError("the data are damaged", place=("data",))
    return small(size, num_classes)
"""
OWN = """\
base:
  data: {name: digits, max_train: 200, max_test: 40, held_out: 50}
  model: "nets.py:small"
  train: {objective: standard, epochs: 1, batch_size: 50}
rows:
  Dead: {model: "nets.py:deadly"}
  Needs it: {model: "nets.py:deadly", repair: {name: fine-tune, epochs: 1}}
  Leaving: {model: "nets.py:Leaving"}
  Diverged: {model: {name: digits-cnn, width: 2, hidden: 8}, train: {lr: 1e30}}
  Good: {}
  Mended: {repair: {name: fine-tune, epochs: 1}}
measure: [accuracy]
"""


def side_by_side(text: str, run: RunRecord) -> Ran:
    plan = make_plan(parse_study(text, name="own", source="own.yaml"))
    return run_plan(plan, run, device=torch.device("cpu"), roots=(), jobs=2)


def kept(run: RunRecord) -> dict[str, tuple[str, Any]]:
    """By cell, what its model and its answers are. Beside an answer stands how long it took, which is left out."""
    return {
        model.parent.name: (
            hashlib.sha256(model.read_bytes()).hexdigest(),
            pyarrow.parquet.read_table(model.parent / "outcomes.parquet"),
        )
        for model in run.path.glob("cells/*/model.safetensors")
    }


def test_models_and_answers_are_the_same_bytes_as_one_after_another(
    plan_of: Callable[..., Any], finished: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunRecord(tmp_path / "tiny")
    ran = run_plan(plan_of(), run, device=torch.device("cpu"), roots=(), jobs=2)
    assert ran == Ran(8, ())
    said = re.findall(r"^bascule: (\d) of 8 cells: .+: \d+\.\d s$", capsys.readouterr().err, re.MULTILINE)
    assert said == [*"12345678"]
    assert kept(run) == kept(finished)
    assert [row.as_dict() for row in read_rows(run)] == [row.as_dict() for row in read_rows(finished)]
    info = json.loads(next(run.path.glob("cells/*/cell.json")).read_text())
    assert info["host"]["threads"] == 1


def test_a_cell_is_seen_before_its_worker_says_a_word(
    plan_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, shown = io.StringIO(), []

    class Silent(processes._Team):
        def give(self, cell: Cell) -> None:
            self._workers.append(worker := processes._Worker())
            worker.cell = cell

        def listen(self, patience: float | None) -> tuple[Cell, float, None]:
            assert patience is None  # nobody else does these cells
            bars._progress.refresh()
            shown.append(re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", file.getvalue()))
            return self._workers.pop().cell, 1.0, None

    monkeypatch.setattr(processes, "_Team", Silent)
    cells = plan_of("twin=false", seeds=1).cells()
    with console_progress(Console(file=file, force_terminal=True, width=120), 2) as bars:
        place = RunContext(record=RunRecord(tmp_path), device=torch.device("cpu"), roots=(), progress=bars)
        processes.run_cells(Waiting(cells, place), place, 2)
    assert re.search(r"starting .* None · seed 0\s*\n\s*starting .* Adv\. training · seed 0\s", shown[0])


def test_a_lost_worker_or_a_failure_leaves_the_other_cells_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Cells that need the model of another wait for it; the user's code is there for the workers."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS.replace("DRIVER", str(os.getpid())))
    run = RunRecord(Path("runs/own"))
    failures = {failure.label: failure.message for failure in side_by_side(OWN, run).failures}
    lost = "its worker was lost: it was killed by SIGKILL, perhaps for want of memory"
    assert failures.keys() == {"Dead · seed 0", "Needs it · seed 0", "Leaving · seed 0", "Diverged · seed 0"}
    assert failures["Dead · seed 0"] == lost
    assert failures["Needs it · seed 0"] == (
        f"it needs the model of 'Needs it · seed 0 · before repair', which was not made: {lost}"
    )  # fmt: skip
    assert failures["Leaving · seed 0"] == "SystemExit(3)"
    assert failures["Diverged · seed 0"].startswith("training diverged at step")
    rows = {row.row: row for row in read_rows(run)}
    assert {name: row.seeds for name, row in rows.items()} == {
        "Dead": 0, "Needs it": 0, "Leaving": 0, "Diverged": 0, "Good": 1, "Mended": 1,
    }  # fmt: skip
    assert any("its worker was lost" in flag for flag in rows["Dead"].as_dict()["flags"])
    assert "Traceback" not in capfd.readouterr().err


def test_a_wrong_request_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS.replace("DRIVER", str(os.getpid())))
    run = RunRecord(Path("runs/own"))
    with pytest.raises(RequestError, match=r"^data: the data are damaged$"):
        side_by_side(OWN.partition("rows:")[0] + 'rows: {Wrong: {model: "nets.py:wrong"}}', run)
    assert not is_locked(run.path)
    assert not list(run.path.glob("cells/*/cell.json"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"jobs": 0}, "jobs: at least one cell at a time; got 0"),
        ({"jobs": 2, "engine": "ray"}, "jobs: not with `engine` ray, which does as many cells at a time as it has"),
    ],
)
def test_what_cannot_be_asked(
    plan_of: Callable[..., Any], tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RequestError, match=problem):
        run_plan(plan_of(), RunRecord(tmp_path / "a"), device=torch.device("cpu"), roots=(), **settings)
    assert not (tmp_path / "a").exists()


def started(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """`bascule run` in a session of its own, two cells in the middle of their training, and its workers."""
    (folder / "long.yaml").write_text(LONG)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "long.yaml", "--jobs", "2"],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("bascule: 1 of 3 cells: Short · seed 0: "):
        assert " cells done; " in line, line  # a busy machine
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    return process, [int(child) for file in children for child in file.read_text().split()]


def until_gone(processes: list[int]) -> None:
    end = time.monotonic() + 60
    while any(is_running(one) for one in processes):
        assert time.monotonic() < end, processes
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])  # as a terminal, as a queue
def test_what_stops_all_of_them_does_so_quietly(how: signal.Signals, code: int, tmp_path: Path) -> None:
    process, workers = started(tmp_path)
    assert len(workers) == 2
    try:
        if how == signal.SIGTERM:  # in whatever order a queue comes to them
            for worker in workers:
                os.kill(worker, how)
        os.killpg(process.pid, how)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (code, "")
    said = "bascule: interrupted: 1 of 3 cells are done and kept in runs/long; the same command continues"
    assert [line for line in err.splitlines() if " cells done; " not in line] == [said]
    until_gone(workers)
    assert not is_locked(tmp_path / "runs" / "long")
    assert list((tmp_path / "runs").rglob(".holder")) == []  # which another machine would watch


def test_workers_end_when_whoever_started_them_is_gone(tmp_path: Path) -> None:
    """In the middle of a training: the pipe that orders come through ends, which no other worker holds open."""
    plan = make_plan(parse_study(LONG, name="long", source="long.yaml"))
    place = Workplace.of(RunContext(record=RunRecord(tmp_path), device=torch.device("cpu"), roots=()))
    heard: SimpleQueue[tuple[processes._Worker, Any]] = SimpleQueue()
    workers = [processes._Worker(), processes._Worker()]
    started = [_process(worker, place, heard) for worker in workers]
    try:
        workers[0].give(plan.cells()[1])
        while heard.get(timeout=120)[1] != Reached("train", 80000, 0, ""):
            pass
        started[0].stdin.close()  # type: ignore[union-attr]
        assert started[0].wait(60) == 0
        assert started[1].poll() is None
    finally:
        for worker in workers:
            worker.stop()
            worker.wait()


def _process(
    worker: processes._Worker, place: Workplace, heard: SimpleQueue[tuple[processes._Worker, Any]]
) -> subprocess.Popen[bytes]:
    worker.start(place, heard)
    assert worker._process is not None
    return worker._process
