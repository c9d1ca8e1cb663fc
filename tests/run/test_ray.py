"""The Ray engine ends in the same record as the local one, and stops on the same errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = [sys.executable, "-c", "from bascule.cli import main; main()"]


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # One thread, as a Ray worker with one core has: sums in another order differ in the last bit.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    return subprocess.run([*MAIN, *words], capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def test_same_table_on_ray(tmp_path: Path, finished) -> None:
    (tmp_path / "tiny.yaml").write_text(finished.plan().text)
    tables = []
    for engine in ("local", "ray"):
        done = call(tmp_path, "run", "tiny.yaml", "--seeds", "1", "--engine", engine, "--runs", engine)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert re.findall(r"^bascule: (\d) of 4 cells: .+: \d+\.\d s$", done.stderr, re.MULTILINE) == [*"1234"]
        tables.append(json.loads(call(tmp_path, "table", "tiny", "--runs", engine, "--format", "json").stdout))
    assert tables[0] == tables[1]
    assert tables[0][0]["seeds"] == 1
    # The record names what was asked for, not what a worker was started with.
    asked = "run tiny.yaml --seeds 1 --engine ray --runs ray"
    cells = [json.loads(path.read_text()) for path in (tmp_path / "ray" / "tiny" / "cells").glob("*/cell.json")]
    assert {cell["command"].partition("run ")[2] for cell in cells} == {asked.removeprefix("run ")}


def test_a_failed_cell_on_ray_is_named(tmp_path: Path, finished) -> None:
    (tmp_path / "tiny.yaml").write_text(finished.plan().text)
    change = ["--set", "rows.None.train.lr=1e30", "--set", "twin=false", "--seeds", "1"]
    done = call(tmp_path, "run", "tiny.yaml", "--engine", "ray", *change)
    assert done.returncode == 1
    assert "failed: None · seed 0: training diverged at step" in done.stderr


def test_without_ray_the_message_says_what_to_install(plan_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bascule.core.errors import RequestError
    from bascule.record.run import RunRecord
    from bascule.run.run import run_plan

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"pip install 'bascule\[ray\]'"):
        run_plan(plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), engine="ray")
