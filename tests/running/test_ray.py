"""The Ray engine ends in the same record as the local one, and stops on the same errors."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from bascule.core.errors import RequestError
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running import ray as module
from bascule.running.cell import is_done
from bascule.running.context import RunContext
from bascule.running.run import run_plan
from bascule.running.workplace import Workplace
from running.test_hooks import SMALL, Notes

MAIN = [sys.executable, "-c", "from bascule.cli import main; main()"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster that was started in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def call(folder: Path, *words: str, cluster: str = "") -> subprocess.CompletedProcess[str]:
    # One thread, as a Ray worker with one core has: sums in another order differ in the last bit.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": cluster}
    return subprocess.run([*MAIN, *words], capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def table(folder: Path) -> list[dict[str, Any]]:
    return [row.as_dict() for row in read_rows(RunRecord(folder))]


def test_same_table_on_ray(tmp_path: Path, finished, cluster: str) -> None:
    (tmp_path / "tiny.yaml").write_text(finished.plan().text)
    tables = []
    for engine in ("local", "ray"):
        done = call(tmp_path, "run", "tiny.yaml", "--seeds", "1", "--engine", engine, "--runs", engine, cluster=cluster)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert re.findall(r"^bascule: (\d) of 4 cells: .+: \d+\.\d s$", done.stderr, re.MULTILINE) == [*"1234"]
        tables.append(table(tmp_path / engine / "tiny"))
    assert tables[0] == tables[1]
    assert tables[0][0]["seeds"] == 1
    # The record names what was asked for, not what a worker was started with.
    asked = "run tiny.yaml --seeds 1 --engine ray --runs ray"
    cells = [json.loads(path.read_text()) for path in (tmp_path / "ray" / "tiny" / "cells").glob("*/cell.json")]
    assert {cell["command"].partition("run ")[2] for cell in cells} == {asked.removeprefix("run ")}


def test_a_failed_cell_on_ray_is_named(tmp_path: Path, finished, cluster: str) -> None:
    (tmp_path / "tiny.yaml").write_text(finished.plan().text)
    change = ["--set", "rows.None.train.lr=1e30", "--set", "twin=false", "--seeds", "1"]
    done = call(tmp_path, "run", "tiny.yaml", "--engine", "ray", *change, cluster=cluster)
    assert done.returncode == 1
    assert "failed: None · seed 0: training diverged at step" in done.stderr


@pytest.mark.usefixtures("cluster")
def test_hooks_hear_of_a_cell_on_ray_when_it_has_ended(plan_of, tmp_path: Path) -> None:
    notes, run = Notes(), RunRecord(tmp_path)
    run_plan(plan_of(text=SMALL), run, device=torch.device("cpu"), roots=(), engine="ray", hooks=[notes])
    assert notes.names() == ["run_begun", "cell_begun", "epoch", "epoch", "cell_ended", "table", "run_ended"]
    ((cell, end),) = notes.of("cell_ended")
    assert [told[2] for told in notes.of("epoch")] == run.cell(cell.fingerprint).curve()
    assert end.measures["accuracy"]["n"] == 40


def test_without_ray_the_message_says_what_to_install(plan_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"pip install 'bascule\[ray\]'"):
        run_plan(plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), engine="ray")


NETS = """
import os, signal
from torch import nn

def small(size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1] * size[2], num_classes))

def deadly(size, num_classes):
    if os.getcwd() == "HOME" and os.getppid() != DRIVER and "RAY_RAYLET_PID" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return small(size, num_classes)
"""
OWN = """
base:
  data: {name: digits, max_train: 200, max_test: 40}
  model: "nets.py:deadly"
  train: {objective: standard, epochs: 1, batch_size: 50}
rows: {Dead: {}, Good: {model: "nets.py:small"}}
measure: [accuracy]
"""


def test_a_lost_worker_fails_its_cell_and_the_users_code_is_there_for_the_others(tmp_path: Path, cluster: str) -> None:
    """With the runs in the current folder, which is not the one that the cluster was started in."""
    text = NETS.replace("HOME", str(tmp_path)).replace("DRIVER", str(os.getpid()))
    (tmp_path / "nets.py").write_text(text)
    (tmp_path / "own.yaml").write_text(OWN)
    done = call(tmp_path, "run", "own.yaml", "--engine", "ray", cluster=cluster)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "bascule: failed: Dead · seed 0: its worker was lost: WorkerCrashedError" in done.stderr
    dead, good = table(tmp_path / "runs" / "own")
    assert good["seeds"] == 1
    assert any("its worker was lost" in flag for flag in dead["flags"])


def test_a_refused_connection_is_one_message(plan_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: Ray itself tries for minutes."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RequestError, match=r"no Ray cluster can be reached at 127.0.0.1:1 \(RAY_ADDRESS\): .*refused"):
        run_plan(plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), engine="ray")


class LostError(Exception):
    """What Ray says of a worker that the system killed for memory, and the like."""


def answer(plan_of: Any, folder: Path, get: Any) -> tuple[str | None, RunContext, Any]:
    kinds = types.SimpleNamespace(RayTaskError=ray.exceptions.RayTaskError, RayError=LostError)
    (cell, *_) = plan_of().cells()
    run = RunContext(record=RunRecord(folder), device=torch.device("cpu"), roots=())
    message, _ = module._answer(types.SimpleNamespace(get=get, exceptions=kinds), None, cell, run)
    return message, run, cell


def test_a_cell_is_done_only_when_its_record_can_be_seen(
    plan_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    message, run, cell = answer(plan_of, tmp_path, lambda _: (None, 1.0))
    assert message is not None
    assert f"its record cannot be seen here: the run folder {tmp_path} must be on storage that every node" in message
    monkeypatch.setattr(module, "is_done", lambda *_: True)
    assert answer(plan_of, tmp_path, lambda _: (None, 1.0))[0] is None
    assert not is_done(cell, run.record.cell(cell.fingerprint))


def test_what_ray_says_of_a_lost_worker_is_recorded(plan_of, tmp_path: Path) -> None:
    def get(_: object) -> None:
        raise LostError("\nTask was killed due to the node running low on memory.\nMore lines.")

    message, run, cell = answer(plan_of, tmp_path, get)
    assert message == "its worker was lost: LostError: Task was killed due to the node running low on memory."
    assert run.record.cell(cell.fingerprint).failure() == message


def test_workers_get_absolute_folders_and_the_same_code(
    plan_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunContext(record=RunRecord(Path("runs/a")), device=torch.device("cpu"), roots=(Path("data"), Path()))
    there = Workplace.of(run)
    assert there.run.record.path == tmp_path / "runs" / "a"
    assert there.run.roots == (tmp_path / "data", tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    message = there.do(b"", {"nets.py:small": "another"})
    assert message == "nets.py:small is another one on a worker: it must be on storage that every node shares, " \
        "at the same place"  # fmt: skip
    assert "its code cannot be read on a worker" in str(there.do(b"", {"gone.py:small": "another"}))
