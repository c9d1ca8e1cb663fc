"""A run that is stopped, continued, or met by a second process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bascule.core.errors import RequestError
from bascule.study.holding import held, is_held
from bascule.study.record import RunRecord
from bascule.study.run import run_plan

# Whoever runs the tests in the background may have Ctrl-C ignored, which would be inherited.
PROGRAM = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bascule.cli import main
main()
"""
STUDY = """\
base:
  data: {name: digits, max_train: 200, max_test: 40}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1, batch_size: 50}
rows:
  Short: {}
  Long:
    train: {epochs: 400}
measure: [accuracy]
"""
MINUTES = 300
"""Seconds after which a test gives up."""


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def call(folder: Path, *words: str) -> tuple[int, str, str]:
    process = start(folder, *words)
    out, err = process.communicate(timeout=MINUTES)
    return process.returncode, out, err


def test_a_run_is_stopped_and_continued_and_alone(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(STUDY)
    run = start(tmp_path, "run", "two.yaml", "--runs", "cut")
    try:
        assert run.stderr is not None
        assert re.fullmatch(r"bascule: 1 of 2 cells: Short · seed 0: \d+\.\d s\n", run.stderr.readline())
        run.send_signal(signal.SIGSTOP)
        before = (tmp_path / "cut/two/study.json").read_bytes()
        code, out, err = call(tmp_path, "run", "two.yaml", "--runs", "cut", "--set", "train.lr=0.1")
        assert (code, out) == (2, "")
        assert re.fullmatch(
            rf"bascule: process {run.pid} on \S+ \(since .+ UTC: .+ run two\.yaml --runs cut\) works on cut/two\. "
            r"Wait until it ends, or stop it \(what it has finished is kept\), or give another folder with --runs\n",
            err,
        )
        assert (tmp_path / "cut/two/study.json").read_bytes() == before
        assert call(tmp_path, "table", "two", "--runs", "cut")[0] == 0  # who only reads need not wait
        run.send_signal(signal.SIGINT)
        run.send_signal(signal.SIGCONT)
        out, err = run.communicate(timeout=MINUTES)
    finally:
        run.kill()
    assert (run.returncode, out) == (130, "")
    assert err == "bascule: interrupted: 1 of 2 cells are done and kept in cut/two; the same command continues\n"
    code, out, err = call(tmp_path, "run", "two.yaml", "--runs", "cut")
    assert code == 0, err
    assert "2 cells, 1 of them done before" in out
    assert call(tmp_path, "run", "two.yaml", "--runs", "whole")[0] == 0
    cut, whole = (call(tmp_path, "table", "two", "--runs", runs, "--format", "json")[1] for runs in ("cut", "whole"))
    assert json.loads(cut) == json.loads(whole)


def test_a_held_run_is_refused_and_left_as_it_is(plan_of, tmp_path: Path) -> None:
    run = RunRecord(tmp_path / "run")
    with held(run.path, "bascule run\ntiny"):
        assert is_held(run.path)
        with pytest.raises(RequestError, match=rf"^process {os.getpid()} on .*: bascule run tiny\) works on "):
            run_plan(plan_of(), run, device=torch.device("cpu"), roots=())
        assert not run.plan_file.exists()
    assert not is_held(run.path)
    with pytest.raises(ZeroDivisionError), held(run.path, "bascule run other"):
        raise ZeroDivisionError
    with held(run.path, "bascule run tiny"):
        pass


def test_nobody_is_in_the_way_where_nobody_was(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_locks_there_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked on this file system"), held(tmp_path, "bascule run tiny"):
        pass
