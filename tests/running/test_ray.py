"""The Ray engine ends in the same record as the local one, and stops on the same errors."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from bascule.core.errors import RequestError
from bascule.hooks import CellFacts
from bascule.plan.document import parse_study
from bascule.plan.resolve import make_plan
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running import pool
from bascule.running import ray as module
from bascule.running.context import RunContext
from bascule.running.resources import Resources
from bascule.running.run import Ran, run_plan
from bascule.running.workplace import Workplace
from running.stand_in_ray import StandInRay
from running.test_hooks import SMALL, Notes
from running.test_processes import kept
from running.test_ray_workers import do_on, unseen

CPU = torch.device("cpu")
STORE = {"object_store_memory": 100_000_000}
MAIN = [sys.executable, "-c", "from bascule.cli import main; main()"]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes with a core each, which was started in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        both = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **STORE})
        both.add_node(num_cpus=1, resources={"second": 1}, **STORE)
        ray.init(address=both.address, log_to_driver=False, logging_level=logging.ERROR)
    yield both
    ray.shutdown()
    both.shutdown()


@pytest.fixture(scope="module")
def cluster(nodes: Cluster) -> str:
    """Its address."""
    return str(nodes.address)


def test_without_ray_the_message_says_what_to_install(plan_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"pip install 'bascule\[ray\]'"):
        run_plan(plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), engine="ray")


NETS = """
import os, signal, time
from pathlib import Path
from torch import nn

def small(size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1] * size[2], num_classes))

def deadly(size, num_classes):
    if os.getcwd() == "HOME" and "RAY_RAYLET_PID" in os.environ and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return small(size, num_classes)

class Held(nn.Sequential):
    def __init__(self, size, num_classes):
        super().__init__(*small(size, num_classes))
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        while self.steps > 30 and Path("HOME/held").exists():
            time.sleep(0.1)
        return super().forward(x)
"""
OWN = """
base:
  data: {name: digits, max_train: 200, max_test: 40}
  model: "nets.py:small"
  train: {objective: standard, epochs: 1, batch_size: 50}
  attack: {name: pgd, eps: 0.3, steps: 2}
rows:
  Dead once: {model: "nets.py:deadly"}
  Good: {poison: {trigger: sticker, target: 7, rate: 0.05}}
  Diverged: {model: {name: digits-cnn, width: 2, hidden: 8}, train: {lr: 1e30}}
seeds: 1
measure: [accuracy, robust-accuracy, asr]
"""


def test_a_lost_worker_and_a_failure_leave_the_table_as_it_is_on_standard_output(tmp_path: Path, cluster: str) -> None:
    """With code of the user, and runs in the current folder, which is not the one that the cluster was started in."""
    (tmp_path / "nets.py").write_text(NETS.replace("HOME", str(tmp_path)))
    (tmp_path / "own.yaml").write_text(OWN)
    command = ["run", "own.yaml", "--engine", "ray", "--runs", "ray"]
    done = subprocess.run(
        [*MAIN, *command], capture_output=True, text=True, cwd=tmp_path, timeout=300,
        env={**os.environ, "RAY_ADDRESS": cluster, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lost = r"^bascule: warning: Dead once · seed 0: its worker on .* was lost: ActorDied.*; it is given to another one$"
    assert re.search(lost, done.stderr, re.MULTILINE)
    ends = re.findall(r"^bascule: (\d) of 4 cells: .+: (\d+\.\d s|failed after .*)$", done.stderr, re.MULTILINE)
    assert [number for number, _ in ends] == [*"1234"]
    assert "failed: Diverged · seed 0: training diverged at step" in done.stderr
    assert re.match(r" +Robust accuracy\n Row +Seeds +Accuracy", done.stdout)
    assert "raylet" not in done.stdout
    # The record names what was asked for, not what a worker was started with.
    cells = [json.loads(path.read_text()) for path in (tmp_path / "ray" / "own" / "cells").glob("*/cell.json")]
    assert {cell["command"].partition("run ")[2] for cell in cells} == {" ".join(command[1:])}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        here = RunRecord(tmp_path / "local")
        run_plan(make_plan(parse_study(OWN, name="own", source="own.yaml")), here, device=CPU, roots=())
    tables = [[row.as_dict() for row in read_rows(run)] for run in (RunRecord(tmp_path / "ray" / "own"), here)]
    assert tables[0] == tables[1]
    assert [row["seeds"] for row in tables[0]] == [1, 1, 0]


def test_a_refused_connection_is_one_message(plan_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: Ray itself tries for minutes."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RequestError, match=r"no Ray cluster can be reached at 127.0.0.1:1 \(RAY_ADDRESS\): .*refused"):
        run_plan(plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), engine="ray")


def test_a_cell_is_done_only_when_its_record_can_be_seen(
    plan_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    monkeypatch.setattr(pool, "is_done", lambda *_: False)
    ran = do_on(StandInRay(1), plan_of(text=SMALL), RunRecord(tmp_path), monkeypatch, shared=True)
    (failure,) = ran.failures
    assert failure.message.startswith(f"its record cannot be seen here: the run folder {tmp_path} must be on storage")


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


def test_a_killed_node_loses_nothing_where_nothing_is_shared(
    tmp_path: Path, nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told while it happens; another node with what the cell wants comes in its place."""
    held = tmp_path / "held"

    class Kills(Notes):
        def epoch(self, cell: CellFacts, epoch: int, values: Mapping[str, float]) -> None:
            super().epoch(cell, epoch, values)
            if len(self.of("epoch")) == 5:
                nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
                held.unlink()
                nodes.add_node(num_cpus=1, resources={"second": 1}, **STORE)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "token_in", unseen)
    Path("nets.py").write_text(NETS.replace("HOME", str(tmp_path)))
    text = OWN.partition("rows:")[0].replace("epochs: 1", "epochs: 12").replace("small", "Held")
    text += "rows: {None: {}}\nseeds: 1\nmeasure: [accuracy]"
    plan = make_plan(parse_study(text, name="own", source="own.yaml"))
    kills, run, wanted = Kills(), RunRecord(tmp_path / "killed"), Resources(more={"second": 1})
    held.touch()
    with pytest.warns(UserWarning, match="its worker on .* was lost: Actor"):
        ran = run_plan(plan, run, device=CPU, roots=(), engine="ray", resources=wanted, hooks=[kills])
    assert ran == Ran(1, ())
    assert len(kills.of("cell_begun")) == 2
    epochs = [epoch for _, epoch, _ in kills.of("epoch")]
    assert epochs[:5] == [1, 2, 3, 4, 5]
    assert epochs[-12:] == [*range(1, 13)]
    assert len(epochs) < 24
    alone = RunRecord(tmp_path / "alone")
    run_plan(plan, alone, device=CPU, roots=())
    assert kept(run) == kept(alone)


def test_what_no_node_has_is_refused_before_any_work(plan_of, tmp_path: Path, cluster: str) -> None:
    wanted = Resources(device="cuda")
    with pytest.raises(RequestError, match=r"^resources: no node of the cluster has cpu=1, gpu=1, .*: cpu=1, memory="):
        run_plan(plan_of(text=SMALL), RunRecord(tmp_path), device=CPU, roots=(), engine="ray", resources=wanted)
