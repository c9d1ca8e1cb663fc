"""The page of a run that goes on: current, never in the way, and never the reason that a run fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bascule.record.run import RunRecord
from bascule.report.page import live
from bascule.report.page.live import LivePage


class Elsewhere:
    """Stands in for the other process: says when it began, and can be made to wait or fail."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.began = threading.Semaphore(0)
        self.wait = threading.Event()
        self.wait.set()
        self.code, self.said = 0, ""

    def __call__(self, words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.words.append(words)
        self.began.release()
        assert self.wait.wait(30)
        return subprocess.CompletedProcess(words, self.code, "", self.said)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    found = Elsewhere()
    monkeypatch.setattr(live.subprocess, "run", found)
    return found


def test_another_process_writes_a_page_that_looks_for_the_next(tiny_run: RunRecord, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    command = [sys.executable, "-P", "-m", "bascule.report.page.live", str(tiny_run.path), str(output), "7.0"]
    subprocess.run(command, check=True)
    text = output.read_text(encoding="utf-8")
    assert '<body data-every="7">' in text
    assert "Running: 16 of 16 models done." in text
    page = LivePage(tiny_run, output, warn=pytest.fail, pause=7)
    page.changed()
    page.close()
    text = output.read_text(encoding="utf-8")
    assert "data-every" not in text
    assert "Finished: 16 models trained and evaluated." in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_other_process_is_asked_for_this_run(tiny_run: RunRecord, tmp_path: Path, elsewhere: Elsewhere) -> None:
    page = LivePage(tiny_run, tmp_path / "r.html", warn=pytest.fail, pause=7)
    page.changed()
    assert elsewhere.began.acquire(timeout=30)
    page.close()
    asked = ["-P", "-m", "bascule.report.page.live", str(tiny_run.path), str(tmp_path / "r.html"), "7"]
    assert elsewhere.words[0][1:] == asked


class Times:
    """A run in which something is new whenever a page has been begun, by a clock of its own."""

    def __init__(self, page: LivePage, monkeypatch: pytest.MonkeyPatch, *, takes: float, pages: int) -> None:
        self.now, self.written = 1000.0, []
        monkeypatch.setattr(live.time, "monotonic", lambda: self.now)

        def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            self.written.append(self.now)
            page.changed()
            self.now += takes
            return subprocess.CompletedProcess(words, 0, "", "")

        def wait(seconds: float) -> bool:
            self.now += seconds
            return len(self.written) == pages

        monkeypatch.setattr(live.subprocess, "run", run)
        monkeypatch.setattr(page._over, "wait", wait)
        page.changed()
        page._follower.join(30)


def test_pages_keep_their_distance_and_miss_nothing(
    tiny_run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = LivePage(tiny_run, tmp_path / "r.html", warn=pytest.fail, pause=30)
    assert Times(page, monkeypatch, takes=0, pages=3).written == [1000, 1030, 1060]


def test_a_page_that_takes_long_is_written_less_often(
    tiny_run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = LivePage(tiny_run, tmp_path / "r.html", warn=pytest.fail, pause=30)
    assert Times(page, monkeypatch, takes=20, pages=2).written == [1000, 1200]  # a tenth of the time


def test_the_run_does_not_wait_for_a_page(tiny_run: RunRecord, tmp_path: Path, elsewhere: Elsewhere) -> None:
    page = LivePage(tiny_run, tmp_path / "r.html", warn=pytest.fail, pause=0)
    elsewhere.wait.clear()
    page.changed()
    assert elsewhere.began.acquire(timeout=30)
    page.changed()  # both return while the first page is still being written
    page.changed()
    assert len(elsewhere.words) == 1
    elsewhere.wait.set()
    assert elsewhere.began.acquire(timeout=30)
    page.close()
    assert len(elsewhere.words) == 2


def test_without_news_there_is_no_page(tiny_run: RunRecord, tmp_path: Path, elsewhere: Elsewhere) -> None:
    page = LivePage(tiny_run, tmp_path / "r.html", warn=pytest.fail, pause=0)
    page.changed()
    assert elsewhere.began.acquire(timeout=30)
    assert not elsewhere.began.acquire(timeout=0.2)
    page.close()


def test_what_goes_wrong_is_one_warning(tiny_run: RunRecord, tmp_path: Path, elsewhere: Elsewhere) -> None:
    warnings: list[str] = []
    page = LivePage(tiny_run, tmp_path / "r.html", warn=warnings.append, pause=0)
    elsewhere.code, elsewhere.said = 1, "Traceback\nOSError: no space left"
    for _ in range(3):  # it may be better by then
        page.changed()
        assert elsewhere.began.acquire(timeout=30)
    page.close()
    assert warnings == [f"the report {tmp_path / 'r.html'} was not written: OSError: no space left"]


def test_a_process_that_cannot_begin_is_a_warning(
    tiny_run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned = threading.Event()
    warnings: list[str] = []
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    page = LivePage(tiny_run, tmp_path / "r.html", warn=lambda text: (warnings.append(text), warned.set()))
    page.changed()
    assert warned.wait(30)
    page.close()
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
