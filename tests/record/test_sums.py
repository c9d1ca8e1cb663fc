"""Every file of a record is checked when it is read: no other number for a flipped bit, and never a traceback."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import bascule.record.sums
from bascule.api.load import load
from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.record.lock import lock_run
from bascule.record.mending import clear_leftovers, mend_cell, mend_run
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.record.sums import DamagedError, read_checked, set_aside, sum_file, sums_of, write_summed
from bascule.report.page.page import write_page

GOLDEN = Path(__file__).parents[1] / "golden" / "run"


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def truncate(path: Path, _: int = 0) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path, _: int = 0) -> None:
    path.write_bytes(b"")


def table(path: Path) -> list[dict]:
    return [row.as_dict() for row in read_rows(RunRecord(path))]


@pytest.fixture
def summed(tmp_path: Path) -> Path:
    """The golden run, with findings of every kind, with the sums that a version with sums gives it."""
    run = RunRecord(Path(shutil.copytree(GOLDEN, tmp_path / "run")))
    assert mend_run(run) == []
    for path in (run.path / "cells").iterdir():
        assert mend_cell(run.cell(path.name)) == []
    return run.path


def test_sums_are_those_that_people_can_check(summed: Path) -> None:
    files = [path for path in summed.rglob("*") if path.is_file() and path.suffix != ".sha256" and path.name[0] != "."]
    assert len(files) > 60
    for path in files:
        assert sums_of(path) == (hashlib.sha256(path.read_bytes()).hexdigest(),), path
    done = subprocess.run(["sha256sum", "--check", "study.json.sha256"], cwd=summed, capture_output=True, check=True)
    assert done.stdout == b"study.json: OK\n"


def test_an_older_record_is_read_and_its_table_stays(summed: Path) -> None:
    assert table(summed) == table(GOLDEN)


KINDS = (
    "cell.json",
    "outcomes.parquet",
    "curve.jsonl",
    "scan-*.npz",
    "inspect-*.npz",
    "filter-made.npz",
    "explain-*.npz",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_changes_no_number_without_a_word(summed: Path, kind: str) -> None:
    before, chance = table(summed), random.Random(kind)
    path = sorted(summed.rglob(kind))[0]
    whole = path.read_bytes()
    for _ in range(3):
        flip(path, chance.randrange(8 * len(whole)))
        rows = table(summed)
        for row, good in zip(rows, before, strict=True):
            told = any(path.name in flag for flag in row["flags"])
            assert told or row["metrics"] == good["metrics"]
            assert told or row.get("curve") == good.get("curve")
        if kind not in ("curve.jsonl", "explain-*.npz"):
            assert any(path.name in flag for row in rows for flag in row["flags"])
        path.write_bytes(whole)
    assert table(summed) == before


@pytest.mark.parametrize("damage", [truncate, empty], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("place", [GOLDEN, None], ids=["without sums", "with sums"])
def test_what_is_cut_off_is_named_and_the_page_is_written(
    tmp_path: Path, summed: Path, place: Path | None, damage: Callable[[Path], None]
) -> None:
    path = summed if place is None else Path(shutil.copytree(place, tmp_path / "old"))
    for kind in KINDS:
        damage(sorted(path.rglob(kind))[0])
    write_page([RunRecord(path)], tmp_path / "page.html")
    flags = {flag for row in table(path) for flag in row["flags"] if flag.startswith("damaged: ")}
    assert {flag.split(": ")[2].rpartition("/")[2].partition("-")[0] for flag in flags} >= {
        "cell.json", "outcomes.parquet", "filter",
    }  # fmt: skip
    assert not list(path.rglob("*.damaged"))  # readers rename nothing


def test_a_plan_that_is_damaged_is_one_error(summed: Path) -> None:
    flip(summed / "study.json", 12345)
    with pytest.raises(DamagedError, match=r"cannot read .*study\.json: it is damaged: .*bascule run STUDY"):
        table(summed)


def test_whoever_holds_the_lock_sets_damage_aside(summed: Path) -> None:
    run = RunRecord(summed)
    cell = next(
        run.cell(path.parent.name) for path in sorted(summed.rglob("scan-*.npz"))[:0] or summed.rglob("curve.jsonl")
    )
    for path in (cell.info_file, cell.model_file, cell.outcomes_file, cell.curve_file):
        flip(path, 99)
    assert {error.path.name for error in mend_cell(cell)} == {
        "cell.json", "model.safetensors", "outcomes.parquet", "curve.jsonl",
    }  # fmt: skip
    assert len(list(cell.path.glob("*.damaged"))) == 4
    assert not cell.trained
    assert cell.info() == {}
    assert mend_cell(cell) == []


def test_a_model_without_a_sum_that_is_cut_off_is_found(tmp_path: Path) -> None:
    run = RunRecord(Path(shutil.copytree(GOLDEN, tmp_path / "run")))
    cell = run.cell(sorted((run.path / "cells").iterdir())[0].name)
    truncate(cell.model_file)
    assert [error.path for error in mend_cell(cell)] == [cell.model_file]


def test_nothing_that_was_set_aside_is_lost(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "x").write_text(str(number))
        set_aside(tmp_path / "x")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "x.damaged": "0", "x.2.damaged": "1", "x.3.damaged": "2",
    }  # fmt: skip


class Killed(BaseException):
    """Stands for a kill."""


def test_a_kill_between_a_sum_and_its_file_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_summed(path, lambda temporary: temporary.write_text("one"))
    write_summed(path, lambda temporary: temporary.write_text("two"))

    def killed_after_the_sum(place: Path, write: Callable[[Path], object]) -> None:
        write_atomically(place, write)
        if place == sum_file(path):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bascule.record.sums, "write_atomically", killed_after_the_sum)
        with pytest.raises(Killed):
            write_summed(path, lambda temporary: temporary.write_text("three"))
    assert read_checked(path) == b"two"
    write_summed(path, lambda temporary: temporary.write_text("four"))
    assert read_checked(path) == b"four"
    path.write_text("two")  # neither the last nor the one before it
    flip(path, 3)
    with pytest.raises(DamagedError):
        read_checked(path)


def test_damage_is_not_taken_for_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_summed(path, lambda temporary: temporary.write_text("one"))
    path.write_text("won")
    write_summed(path, lambda temporary: temporary.write_text("two"))
    path.write_text("won")
    with pytest.raises(DamagedError):
        read_checked(path)


@pytest.mark.parametrize("times", [1, 3])
def test_a_file_that_another_machine_replaces_while_it_is_read_is_read_again(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, really, failed = tmp_path / "cell.json", Path.read_bytes, []
    write_summed(path, lambda temporary: temporary.write_text("{}"))

    def gone(self: Path) -> bytes:
        if self == path and len(failed) < times:
            failed.append(self)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return really(self)

    monkeypatch.setattr(Path, "read_bytes", gone)
    if times == 1:
        assert read_checked(path) == b"{}"
    else:
        with pytest.raises(OSError, match="Stale file handle"):
            read_checked(path)


def test_a_damage_keeps_its_kind_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DamagedError(Path("x"), "it is damaged")))
    assert isinstance(error, DamagedError)
    assert str(error) == "cannot read x: it is damaged"


def test_a_cell_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    cell = RunRecord(tmp_path).cell("one")
    cell.path.mkdir(parents=True)
    cell.info_file.write_text(json.dumps({"format": 2}))
    with pytest.raises(RequestError, match=r"cell\.json has format 2; this version reads 1\. A newer version wrote it"):
        cell.info()
    cell.info_file.write_text(json.dumps({"format": 0}))
    with pytest.raises(RequestError, match="has format 0"):
        cell.info()


def test_an_earlier_format_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bascule.record.reading._MIGRATIONS, 0, lambda values: {"seed": values["number"], "format": 1})
    cell = RunRecord(tmp_path).cell("one")
    cell.path.mkdir(parents=True)
    cell.info_file.write_text(json.dumps({"format": 0, "number": 5}))
    assert cell.info()["seed"] == 5


@pytest.mark.parametrize(
    "info",
    [
        *([], {"data": 3}, {"data": {}}, {"failure": "x"}, {"host": []}, {"seconds": "soon"}, {"base": 7}),
        *({"parameters": {}}, {"poisoned": 0.05}, {"seed": "010"}, {"parameters": 10**30}),
    ],
    ids=str,
)
def test_a_cell_that_says_nonsense_is_damaged(tmp_path: Path, info: object) -> None:
    run = RunRecord(Path(shutil.copytree(GOLDEN, tmp_path / "run")))
    cell = run.cell(run.plan().rows[0].seeds[0].cell.fingerprint)
    cell.info_file.write_text(json.dumps(info))
    assert any("cell.json" in flag for flag in read_rows(run)[0].flags)
    write_page([run], tmp_path / "page.html")
    load(run.path).frames()


def test_a_cell_may_not_know_how_long_it_took(tmp_path: Path) -> None:
    run = RunRecord(Path(shutil.copytree(GOLDEN, tmp_path / "run")))
    cell = run.cell(run.plan().rows[0].seeds[0].cell.fingerprint)
    cell.info_file.write_text(json.dumps({**cell.info(), "seconds": None}))
    write_page([run], tmp_path / "page.html")
    assert not cell.damaged()


def test_leftovers_of_killed_processes_are_cleared_away(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    kept = tmp_path / ".report.html.1-deadbeef"  # a page that a process which is alive may be writing
    gone = [
        tmp_path / f".report.html.{ended.pid}-deadbeef",
        tmp_path / f".study.json.{ended.pid}-00000000",
        tmp_path / ".writable",
        tmp_path / "cells" / "one" / ".cell.json.1-deadbeef",
        tmp_path / "cells" / "one" / "findings" / ".scan-1.npz.77-0123abcd",
    ]
    for path in [kept, *gone]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    (tmp_path / ".lock").touch()
    _, plan, *_ = gone
    clear_leftovers(tmp_path, alone=False)  # other parts may be writing pages and cells, on other machines
    assert [path for path in gone if not path.exists()] == [plan]
    clear_leftovers(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted([kept, tmp_path / ".lock", tmp_path / "cells" / "one" / ".lock"])
    (tmp_path / ".holder").write_text("somebody who was killed")
    with lock_run(tmp_path, "bascule run"):
        assert "bascule run" in (tmp_path / ".holder").read_text()
    assert not (tmp_path / ".holder").exists()
