"""A run that is stopped, continued, or met by a second process."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from bascule.core.errors import RequestError
from bascule.plan.document import parse_study
from bascule.plan.resolve import make_plan
from bascule.record.lock import is_locked, lock_run
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import run_plan
from interruptible import PROGRAM

STUDY = """\
base:
  data: {name: digits, max_train: 200, max_test: 40}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1, batch_size: 50}
rows:
  Short: {}
  Long:
    train: {epochs: 200}
measure: [accuracy]
"""


def here(text: str, run: RunRecord) -> list[dict[str, Any]]:
    """The table of a study that is run in this process."""
    plan = make_plan(parse_study(text, name="two", source="two.yaml"))
    assert run_plan(plan, run, device=torch.device("cpu"), roots=()).failures == ()
    return [row.as_dict() for row in read_rows(run)]


def test_a_run_is_alone_and_stopped_and_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.yaml").write_text(STUDY)
    cut = RunRecord(tmp_path / "cut" / "two")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "two.yaml", "--runs", "cut"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("bascule: 1 of 2 cells: Short · seed 0: "):
            assert " cells done; " in line  # a busy machine
        process.send_signal(signal.SIGSTOP)
        before = cut.plan_file.read_bytes()
        with pytest.raises(RequestError) as refused:
            here(STUDY.replace("epochs: 1,", "epochs: 2,"), cut)
        assert re.fullmatch(
            rf"process {process.pid} on \S+ \(since .+ UTC: .+ run two\.yaml --runs cut\) works on {cut.path}\. "
            r"Wait until it ends, or stop it \(what it has finished is kept\), or give another folder with `runs`",
            str(refused.value),
        )
        assert cut.plan_file.read_bytes() == before
        assert [row.seeds for row in read_rows(cut)] == [1, 0]  # who only reads need not wait
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    said = "bascule: interrupted: 1 of 2 cells are done and kept in cut/two; the same command continues"
    assert [line for line in err.splitlines() if " cells done; " not in line] == [said]
    capsys.readouterr()
    continued = here(STUDY, cut)
    assert capsys.readouterr().err.count(" of 1 cell: Long · seed 0: ") == 1
    assert continued == here(STUDY, RunRecord(tmp_path / "whole" / "two"))


def test_a_held_run_is_refused_and_left_as_it_is(plan_of, tmp_path: Path) -> None:
    run = RunRecord(tmp_path / "run")
    with lock_run(run.path, "bascule run\ntiny"):
        assert is_locked(run.path)
        with pytest.raises(RequestError, match=rf"^process {os.getpid()} on .*: bascule run tiny\) works on "):
            run_plan(plan_of(), run, device=torch.device("cpu"), roots=())
        assert not run.plan_file.exists()
    assert not is_locked(run.path)
    with pytest.raises(ZeroDivisionError), lock_run(run.path, "bascule run other"):
        raise ZeroDivisionError
    with lock_run(run.path, "bascule run tiny"):
        pass


def test_nobody_is_in_the_way_where_nobody_was(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_locks_there_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with (
        pytest.warns(UserWarning, match="cannot be locked on this file system"),
        lock_run(tmp_path, "bascule run tiny"),
    ):
        pass
