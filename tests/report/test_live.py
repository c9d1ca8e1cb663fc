"""The page of a run that goes on: current, never in the way, and never the reason that a run fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bascule.report import live
from bascule.report.live import LivePage
from bascule.study.record import RunRecord


class Elsewhere:
    """Stands in for the other process: counts, and can be made to wait or fail."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.wait = threading.Event()
        self.wait.set()
        self.code, self.said = 0, ""

    def __call__(self, words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.words.append(words)
        assert self.wait.wait(30)
        return subprocess.CompletedProcess(words, self.code, "", self.said)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    found = Elsewhere()
    monkeypatch.setattr(live.subprocess, "run", found)
    return found


class Clock:
    """Stands in for the clock."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(live.time, "monotonic", lambda: found.now)
    return found


def settled(page: LivePage) -> LivePage:
    """When nothing is being written any more."""
    if page._writer is not None:
        page._writer.join()
    return page


def test_another_process_writes_a_page_that_looks_for_the_next(tiny_run: RunRecord, tmp_path: Path) -> None:
    warnings: list[str] = []
    page = LivePage(tiny_run, tmp_path / "report.html", warn=warnings.append, pause=7)
    page.changed()
    settled(page)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<body data-every="7">' in text
    assert "Running: 16 of 16 models done." in text
    page.close()
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "data-every" not in text
    assert "Finished: 16 models trained and evaluated." in text
    assert warnings == []
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_pages_are_not_written_more_often_than_wanted(
    tiny_run: RunRecord, tmp_path: Path, elsewhere: Elsewhere, clock: Clock
) -> None:
    page = LivePage(tiny_run, tmp_path / "r.html", warn=pytest.fail, pause=30)
    written = []
    for moment in (1000.0, 1001.0, 1029.0, 1030.0, 1031.0, 1059.0, 1061.0):
        clock.now = moment
        page.changed()
        settled(page)
        written.append(len(elsewhere.words))
    assert written == [1, 1, 1, 2, 2, 2, 3]


def test_a_page_that_takes_long_is_written_less_often(
    tiny_run: RunRecord, tmp_path: Path, elsewhere: Elsewhere, clock: Clock
) -> None:
    page = LivePage(tiny_run, tmp_path / "r.html", warn=pytest.fail, pause=30)
    elsewhere.wait.clear()
    page.changed()
    clock.now = 1020.0  # seconds for one page
    elsewhere.wait.set()
    settled(page)
    written = []
    for moment in (1060.0, 1199.0, 1200.0):
        clock.now = moment
        page.changed()
        settled(page)
        written.append(len(elsewhere.words))
    assert written == [1, 1, 2]


@pytest.mark.usefixtures("clock")
def test_the_run_does_not_wait_for_a_page(tiny_run: RunRecord, tmp_path: Path, elsewhere: Elsewhere) -> None:
    page = LivePage(tiny_run, tmp_path / "r.html", warn=pytest.fail, pause=0)
    elsewhere.wait.clear()
    page.changed()
    page.changed()  # returns while the first page is still being written, and begins no second one
    assert len(elsewhere.words) == 1
    elsewhere.wait.set()
    settled(page).changed()
    settled(page)
    assert len(elsewhere.words) == 2


@pytest.mark.usefixtures("clock")
def test_what_goes_wrong_is_one_warning(tiny_run: RunRecord, tmp_path: Path, elsewhere: Elsewhere) -> None:
    warnings: list[str] = []
    page = LivePage(tiny_run, tmp_path / "r.html", warn=warnings.append, pause=0)
    elsewhere.code, elsewhere.said = 1, "Traceback\nOSError: no space left"
    for _ in range(3):
        page.changed()
        settled(page)
    assert len(elsewhere.words) == 3  # it may be better by then
    assert warnings == [f"the report {tmp_path / 'r.html'} was not written: OSError: no space left"]


def test_a_process_that_cannot_begin_is_a_warning(
    tiny_run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    page = LivePage(tiny_run, tmp_path / "r.html", warn=warnings.append)
    page.changed()
    settled(page)
    assert len(warnings) == 1
    assert "No such file" in warnings[0]


def test_a_last_page_that_cannot_be_written_is_a_warning(tiny_run: RunRecord, tmp_path: Path) -> None:
    warnings: list[str] = []
    (tmp_path / "r.html").mkdir()
    LivePage(tiny_run, tmp_path / "r.html", warn=warnings.append).close()
    assert len(warnings) == 1
    assert "directory" in warnings[0]


def test_a_record_that_is_damaged_is_a_warning(tiny_run: RunRecord, tmp_path: Path) -> None:
    run = RunRecord(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    run.plan_file.write_text("{")
    warnings: list[str] = []
    LivePage(run, tmp_path / "r.html", warn=warnings.append).close()
    assert len(warnings) == 1
    assert "cannot read" in warnings[0]


def test_a_run_that_never_began_has_no_page(tmp_path: Path) -> None:
    LivePage(RunRecord(tmp_path / "run"), tmp_path / "r.html", warn=pytest.fail).close()
    assert list(tmp_path.iterdir()) == []
