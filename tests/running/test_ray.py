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
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from bascule.core.errors import RequestError
from bascule.hooks import CellFacts
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


def call(folder: Path, *words: str, cluster: str = "") -> subprocess.CompletedProcess[str]:
    # One thread, as a worker with one core has: sums in another order differ in the last bit.
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
rows:
  Dead: {}
  Good: {model: "nets.py:small"}
  Diverged: {model: {name: digits-cnn, width: 2, hidden: 8}, train: {lr: 1e30}}
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
    assert re.search(
        r"failed: Dead · seed 0: its worker on .* was lost: ActorDiedError.*\(tried 3 times\)", done.stderr
    )
    assert "failed: Diverged · seed 0: training diverged at step" in done.stderr
    dead, good, _ = table(tmp_path / "runs" / "own")
    assert good["seeds"] == 1
    assert any("was lost" in flag for flag in dead["flags"])


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


LONG = SMALL.replace("epochs: 2", "epochs: 600")


def test_a_killed_node_loses_nothing_where_nothing_is_shared(
    plan_of, tmp_path: Path, nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told while it happens; another node with what the cell wants comes in its place."""

    class Kills(Notes):
        def epoch(self, cell: CellFacts, epoch: int, values: Mapping[str, float]) -> None:
            super().epoch(cell, epoch, values)
            if len(self.of("epoch")) == 5:
                nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
                nodes.add_node(num_cpus=1, resources={"second": 1}, **STORE)

    monkeypatch.setattr(module, "token_in", unseen)
    kills, plan, run = Kills(), plan_of(text=LONG), RunRecord(tmp_path / "killed")
    wanted = Resources(more={"second": 1})
    with pytest.warns(UserWarning, match="its worker on .* was lost: Actor"):
        ran = run_plan(plan, run, device=CPU, roots=(), engine="ray", resources=wanted, hooks=[kills])
    assert ran == Ran(1, ())
    assert len(kills.of("cell_begun")) == 2
    epochs = [epoch for _, epoch, _ in kills.of("epoch")]
    assert epochs[:5] == [1, 2, 3, 4, 5]
    assert epochs[-600:] == [*range(1, 601)]
    assert len(epochs) < 1200
    alone = RunRecord(tmp_path / "alone")
    run_plan(plan, alone, device=CPU, roots=())
    assert kept(run) == kept(alone)


def test_what_no_node_has_is_refused_before_any_work(plan_of, tmp_path: Path, cluster: str) -> None:
    wanted = Resources(device="cuda")
    with pytest.raises(RequestError, match=r"^resources: no node of the cluster has cpu=1, gpu=1, .*: cpu=1, memory="):
        run_plan(plan_of(text=SMALL), RunRecord(tmp_path), device=CPU, roots=(), engine="ray", resources=wanted)
