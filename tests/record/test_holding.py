"""Locks on file systems where each machine sees its own alone: stood in for by two processes that lock other files."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import pytest

from bascule.core.errors import RequestError
from bascule.record import holding
from bascule.record.lock import Part, is_cell_locked, lock_cell, lock_run, parts_at_work
from bascule.record.sums import write_summed

ELSEWHERE = """\
import sys
from pathlib import Path
import filelock
from bascule.record import holding
from bascule.record.lock import Part, lock_cell, lock_run

folder, what = Path(sys.argv[1]), sys.argv[2]
holding._BEAT = 0.02
holding._machine = lambda: "node-b"
holding.platform.node = lambda: "node-b"
holding.FileLock = lambda path, **settings: filelock.FileLock(f"{path}.b", **settings)
held = lock_cell(folder) if what == "cell" else lock_run(folder, "bascule run", Part(1, 2) if what == "part" else None)
with held as let_others_begin:
    if what == "part":
        let_others_begin()
    print("held", flush=True)
    sys.stdin.read()
"""
"""Holds a run, a part or a cell on another machine, whose locks are not seen here, until its input ends."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "_BEAT", 0.02)
    monkeypatch.setattr(holding, "_LOOK", 0.01)
    monkeypatch.setattr(holding, "_WATCH", 2.0)


@contextmanager
def elsewhere(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", ELSEWHERE, str(folder), what]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def until(true: Any) -> None:
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not come true")


def holder(token: str = "0123456789abcdef", process: int = 7, machine: str = "node-b", counted: int = 1) -> str:
    return f"process {process} on node-b (since yesterday: bascule run)\n{token} {process} {machine}\n{counted:010}\n"


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# --- locks that are not seen -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("part", Part(1, 2)),
        ("part", Part(2, 2)),
        ("part", Part(1, 3)),
        ("part", None),
        ("run", None),
        ("run", Part(1, 2)),
    ],
)
def test_who_works_elsewhere_is_found_though_the_system_would_grant_the_lock(
    held: str, asked: Part | None, tmp_path: Path
) -> None:
    with elsewhere(tmp_path, held) as process:
        assert parts_at_work(tmp_path) == []
        waited = pytest.warns(UserWarning, match=rf"process {process.pid} on node-b .* may still be at work here")
        with waited, pytest.raises(RequestError) as refused, lock_run(tmp_path, "bascule run", asked):
            pass
        assert re.match(
            rf"process {process.pid} on node-b \(since .* UTC: bascule run\) works on .*: it keeps saying so in "
            rf"{re.escape(str(tmp_path))}/.*\.holder, but its lock is not seen here\. On this file system locks are ",
            str(refused.value),
        )
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    with lock_run(tmp_path, "bascule run", asked):
        assert list(tmp_path.rglob("*.holder"))
    assert list(tmp_path.rglob("*.holder")) == []


@pytest.mark.parametrize(("part", "own"), [(Part(2, 2), ".parts/2-of-2.holder"), (None, ".holder")])
def test_of_two_that_begin_at_the_same_time_one_sees_the_other(
    part: Part | None, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each looks for others before, and again when it can be seen itself."""
    seen: list[bool] = []
    monkeypatch.setattr("bascule.record.lock._refuse_unseen", lambda folder: seen.append((folder / own).is_file()))
    with lock_run(tmp_path, "bascule run", part):
        assert seen == [False, True]


def test_a_cell_that_somebody_is_at_elsewhere_is_waited_for(tmp_path: Path) -> None:
    cell = tmp_path / "cells" / "0123"
    with elsewhere(cell, "cell") as process:
        assert is_cell_locked(cell)
        with lock_cell(cell, patience=0.3) as free:
            assert not free
        unseen = rf"^process {process.pid} on node-b .* lock is not seen here"
        with pytest.raises(RequestError, match=unseen), lock_run(tmp_path, "bascule run"):
            pass
        process.kill()
        process.wait()
        assert is_cell_locked(cell)  # it may only be slow
        until(lambda: not is_cell_locked(cell))
        with lock_cell(cell, patience=0) as free:
            assert free
    assert not is_cell_locked(cell)
    assert list(cell.glob("*.holder")) == []


def test_what_is_nobodys_is_watched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at the same time, and only then is anybody kept waiting."""
    left = [tmp_path / ".parts" / f"{name}.holder" for name in ("1-of-4", "2-of-4", "3-of-4")]
    for path in [*left, tmp_path / ".holder", tmp_path / "cells" / "one" / ".holder"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(holder())
    found = holding.find_unseen
    looked: list[list[str]] = []

    def note(locks: Any) -> Any:
        given = list(locks)
        looked.append(sorted(lock.name for lock in given))
        return found(given)

    monkeypatch.setattr("bascule.record.lock.find_unseen", note)
    waited = pytest.warns(UserWarning, match="process 7 on node-b .* may still be at work here, .* for up to 2 s")
    with waited as said, lock_run(tmp_path, "bascule run", Part(2, 4)) as let_others_begin:
        assert len(said) == 1
        assert [path.name for path in (tmp_path / ".parts").glob("*-*.holder")] == ["2-of-4.holder"]
        assert looked == [
            [".lock", ".lock", "1-of-4.lock", "2-of-4.lock", "3-of-4.lock"],
            [".lock", ".lock", "2-of-4.lock"],
        ]
        let_others_begin()


# --- nothing is waited for in the usual case -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(lambda: holder(process=dead(), machine=holding._machine()), id="of a process that has ended"),
        pytest.param(lambda: holder(process=os.getpid(), machine=holding._machine()), id="of one with this number"),
        pytest.param(lambda: "process 7 on node-b (since 2026-01-01)", id="of an earlier version"),
    ],
)
def test_what_a_process_of_this_machine_left_is_taken_at_once(left: Any, tmp_path: Path) -> None:
    (tmp_path / ".holder").write_text(left())
    assert not is_cell_locked(tmp_path)
    with lock_cell(tmp_path, patience=0) as free:
        assert free
        assert f"process {os.getpid()} on " in (tmp_path / ".holder").read_text()
        assert is_cell_locked(tmp_path)
    assert not (tmp_path / ".holder").exists()


def test_a_link_in_place_of_a_holder_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / ".holder").symlink_to(tmp_path / "precious")
    with lock_cell(tmp_path / "cell", patience=0) as free:
        assert free
        assert not (tmp_path / "cell" / ".holder").is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


def test_where_nothing_can_be_written_the_lock_alone_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def full(path: Any, flags: int, mode: int = 0o777, **settings: Any) -> int:
        if str(path).endswith(".holder") and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(path, flags, mode, **settings)

    monkeypatch.setattr(os, "open", full)
    with lock_cell(tmp_path, patience=0) as free:
        assert free
        assert is_cell_locked(tmp_path)
        write_summed(tmp_path / "cell.json", lambda path: path.write_text("{}"))
    assert not is_cell_locked(tmp_path)


@pytest.mark.parametrize("where", ["_write", "release"])
def test_ctrl_c_leaves_no_lock_behind(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a holder is made, or is about to go; the caller may keep what was raised, and with it the locks."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "_write":
            patch.setattr(holding.Hold, "_write", stopped)
        else:
            patch.setattr(threading.Thread, "join", stopped)
        with pytest.raises(KeyboardInterrupt) as kept, lock_cell(tmp_path):
            pass
    assert kept.value is not None
    assert not is_cell_locked(tmp_path)
    with lock_cell(tmp_path, patience=0) as free:
        assert free


# --- what a process does that was taken for lost ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "who"), [(holder(), r"process 7 on node-b \(since"), (None, "another process, which ")]
)
def test_who_was_taken_for_lost_writes_nothing_more(now: str | None, who: str, tmp_path: Path) -> None:
    cell, other = tmp_path / "cell", tmp_path / "other"
    other.mkdir()
    with lock_cell(cell):
        write_summed(cell / "cell.json", lambda path: path.write_text("{}"))
        (cell / ".holder").unlink()
        if now is not None:
            (cell / ".holder").write_text(now)
        with pytest.raises(
            RequestError, match=rf"^{who}.*has taken over .*cell: seen from there, process {os.getpid()} "
        ):
            write_summed(cell / "cell.json", lambda path: path.write_text("[]"))
        write_summed(other / "cell.json", lambda path: path.write_text("{}"))
    assert (cell / "cell.json").read_text() == "{}"
    assert (cell / ".holder").exists() == (now is not None)
    with suppress(FileNotFoundError):
        assert (cell / ".holder").read_text() == now


def test_a_lock_that_the_server_has_forgotten_is_taken_again(tmp_path: Path) -> None:
    own = holding.hold(tmp_path / ".lock", tmp_path, patience=0)
    own._system.release()
    until(lambda: holding.is_taken(tmp_path / ".lock"))
    own.release()
    assert not holding.is_held(tmp_path / ".lock")
    assert isinstance(own._system, filelock.FileLock)
