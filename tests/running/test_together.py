"""Two processes do a run together: the record is the one that a process makes alone, also after one was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from bascule.core.errors import RequestError
from bascule.core.team import Team
from bascule.plan.document import parse_study
from bascule.plan.resolve import make_plan
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import run_plan
from bascule.running.starting import devices_of
from bascule.running.together import own_device, run_together
from interruptible import PROGRAM
from orphans import check_ends_with_its_starter
from teams import members

STUDY = """\
base:
  data: {name: digits, max_train: 80, max_test: 40, held_out: 50}
  model: {name: digits-cnn, width: 2, hidden: 8}
  poison: {trigger: sticker, target: 7, rate: 0.1}
  train: {objective: {name: pgd, eps: 0.1, steps: 2}, epochs: 4, batch_size: 40, lr: 0.003, shares: 2}
  attack: [{name: pgd, eps: 0.1, steps: 2}]
rows:
  Long: {probe: {every: 2}}
  Filtered: {filter: spectral-signatures, train: {epochs: 2, keep: best}}
  Mended: {repair: {name: fine-tune, epochs: 1}}
  Isolating: {train: {objective: abl, epochs: 4}}
  Diverged: {train: {lr: 1.0e+30}}
measure: [accuracy, robust-accuracy, asr]
"""
OFTEN = """\
import functools
import bascule.running.make as make
make.train = functools.partial(make.train, checkpoint_seconds=0)
"""
"""A checkpoint after every step."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def alone(home: Path) -> RunRecord:
    """The run of one process."""
    run = RunRecord(home / "alone" / "study")
    plan = make_plan(parse_study(STUDY, name="study", source="study.yaml"))
    assert len(run_plan(plan, run, device=torch.device("cpu"), roots=()).failures) == 2
    return run


def command(*words: str) -> list[str]:
    return ["-c", OFTEN + PROGRAM, "run", "study.yaml", "--runs", "two", *words]


def kill_one(home: Path) -> tuple[int, str]:
    """Start the run as torchrun does and kill the second process in a training: how the first ends, what it says."""
    first, second = members(command("--device", "cpu"), cwd=home, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not any(home.glob("two/study/cells/*/checkpoint.pt")):
        assert time.monotonic() < until
        assert first.poll() is None
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    out, err = first.communicate(timeout=120)
    second.communicate()
    assert out == ""
    return first.returncode, err


def test_killed_and_continued(home: Path, alone: RunRecord) -> None:
    code, said = kill_one(home)
    gone = "another of the processes that work together has gone. What is finished is kept; the same command continues."
    assert (code, said.splitlines()[-1]) == (1, f"bascule: {gone}")
    run = RunRecord(home / "two" / "study")
    assert list(run.path.glob("cells/*/checkpoint.pt"))
    again = subprocess.run(
        [sys.executable, *command("--device", "cpu,cpu")],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    diverged = "training diverged at step "
    ended = [line for line in again.stderr.splitlines() if " of 12 cells: " in line]
    assert len(ended) == 12  # said by one of them
    assert again.stderr.count(f"bascule: failed: Diverged · seed 0: {diverged}") == 1
    assert (again.returncode, again.stdout.count("Accuracy %")) == (1, 1)
    check_same(run, alone)


def check_same(run: RunRecord, other: RunRecord) -> None:
    """Models to rounding, and every answer."""
    assert [row.as_dict() for row in read_rows(run)] == [row.as_dict() for row in read_rows(other)]
    cells = [run.cell(path.name) for path in sorted((run.path / "cells").iterdir())]
    assert sum(cell.trained for cell in cells) == 10
    for cell in cells:
        twin = other.cell(cell.path.name)
        assert cell.trained == twin.trained
        host = cell.info()["host"]
        assert (host["processes"], "processes" in twin.info()["host"]) == (2, False)
        if not cell.trained:
            assert cell.info()["failure"] == twin.info()["failure"]
            continue
        files = {str(path.relative_to(cell.path)) for path in cell.path.rglob("*")}
        assert files == {str(path.relative_to(twin.path)) for path in twin.path.rglob("*")}
        weights, theirs = (safetensors.torch.load_file(one.model_file) for one in (cell, twin))
        for name, value in weights.items():
            torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-4)
        answers, others = (one.answers().predictions for one in (cell, twin))
        assert {key: values.tolist() for key, values in answers.items()} == {
            key: values.tolist() for key, values in others.items()
        }
        assert [round(point["loss"], 3) for point in cell.curve()] == [
            round(point["loss"], 3) for point in twin.curve()
        ]


def test_they_end_with_the_one_that_started_them() -> None:
    """What they run is replaced by something that goes on."""
    program = """
from bascule.running import starting
begin, _ = starting._PROGRAM.split("from bascule.cli")
starting._PROGRAM = begin + "import time; print('up', flush=True); time.sleep(300)"
starting.start_together(2, print)
"""
    check_ends_with_its_starter(program, started=2)


# --- what is refused -------------------------------------------------------------------------------------------------


class Pair(Team):
    """The first of two, of which the other always agrees."""

    def gather(self, value: Any) -> list[Any]:
        return [value, value]

    def agreed(self, value: Any) -> Any:
        return value


def test_batches_that_two_cannot_divide(tmp_path: Path) -> None:
    plan = make_plan(parse_study(STUDY.replace("shares: 2", "shares: 1"), name="study", source="study.yaml"))
    with pytest.raises(RequestError) as refused:
        run_together(Pair(0, 2), plan, RunRecord(tmp_path / "run"), device=torch.device("cpu"), roots=())
    assert str(refused.value) == (
        "train.shares: 2 processes train together, and each batch has 1 share, which they cannot divide evenly. Set "
        "train.shares=2 (or a multiple of it): each share of a batch then has draws, batch-norm statistics and a "
        "search for images of its own, and so the model is another one than with 1"
    )
    assert not (tmp_path / "run" / "study.json").exists()


@pytest.mark.parametrize("options", [{"jobs": 2}, {"engine": "ray"}])
def test_side_by_side(options: dict[str, Any], tmp_path: Path, plan_of: Callable[..., Any]) -> None:
    with pytest.raises(RequestError, match="do each cell together, so that none is left") as refused:
        run_together(Pair(0, 2), plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), **options)
    assert refused.value.place == tuple(options)


# --- devices ---------------------------------------------------------------------------------------------------------


def test_names_of_several_devices() -> None:
    assert devices_of("auto") == ["auto"]
    assert devices_of("cuda:1") == ["cuda:1"]
    assert devices_of("cuda:0,1,3") == devices_of("cuda:0,cuda:1,cuda:3") == ["cuda:0", "cuda:1", "cuda:3"]
    assert devices_of("cpu, cpu") == ["cpu", "cpu"]


def test_each_process_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="starts a process for each; start a script of your own with torchrun"):
        own_device("cpu,cpu", Team())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    for name, value in {"WORLD_SIZE": "8", "RANK": "6", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    wanted = {"auto": "cuda:2", "cuda": "cuda:2", "cuda:0,1,3": "cuda:3", "cpu": "cpu", "cuda:1": "cuda:1"}
    assert {name: str(own_device(name, Pair(0, 2))) for name in wanted} == wanted
    with pytest.raises(RequestError, match="more processes were started than these devices: 'cpu,cpu'"):
        own_device("cpu,cpu", Pair(0, 2))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # each process is shown its own
    assert own_device("auto", Pair(0, 2)) == torch.device("cuda:0")
