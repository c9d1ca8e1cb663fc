"""What a log is told of long work, and what a terminal is."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from bascule.running.console import Bars, Lines, console_progress


def console(*, terminal: bool = False, width: int = 20) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=width), file


def until(file: io.StringIO, pattern: str) -> str:
    """What is written once it holds `pattern`."""
    end = time.monotonic() + 60
    while not re.search(pattern, file.getvalue(), re.MULTILINE):
        assert time.monotonic() < end, file.getvalue()
        time.sleep(0.005)
    return file.getvalue()


def test_one_line_for_each_cell_that_ended() -> None:
    (log, file), ended = console(), []
    with console_progress(log, 2, lambda: ended.append(1)) as progress:
        assert isinstance(progress, Lines)
        progress.begin("A [red]")
        with progress.stage("train", 300):
            progress.update(50, "epoch 1/6  loss 2.302  lr 0.01")
        progress.end("A [red]", 12.34, None)
        progress.end("B", 7.0, "training diverged at step 3 of 300:\nthe loss is not finite")
    assert file.getvalue() == (
        "bascule: 1 of 2 cells: A [red]: 12.3 s\n"
        "bascule: 2 of 2 cells: B: failed after 7.0 s: training diverged at step 3 of 300: the loss is not finite\n"
    )
    assert len(ended) == 2


def test_long_cells_say_how_far_they_are() -> None:
    log, file = console()
    lines = Lines(log, 8, every=0.01)
    with lines.kept_up():
        until(file, r"^bascule: 0 of 8 cells done; working, \d+ s so far$")  # on Ray nothing is begun here
        lines.begin("A")
        until(file, r"; A, 0 s so far$")
        with lines.stage("train", 300):
            lines.update(50, "epoch 1/6  loss 2.302  lr 0.01")
            until(file, r"^bascule: 0 of 8 cells done; A: train 50/300 epoch 1/6 loss 2\.302 lr 0\.01, \d+ s so far$")
        with lines.stage("scan", 1):
            until(file, r"; A: scan, \d+ s so far$")
        lines.end("A", 1.0, None)
        until(file, r"^bascule: 1 of 8 cells done; working")
    said = file.getvalue()
    time.sleep(0.1)
    assert file.getvalue() == said


def test_the_stage_of_a_failed_cell_is_not_the_next_ones() -> None:
    log, file = console()
    lines = Lines(log, 2, every=0.01)
    lines.begin("A")
    with pytest.raises(ZeroDivisionError), lines.stage("train", 300):
        raise ZeroDivisionError
    lines.begin("B")
    with lines.kept_up():
        until(file, r"; B, \d+ s so far$")


def test_of_several_cells_each_says_how_far_it_is() -> None:
    log, file = console()
    lines = Lines(log, 8, every=0.01)
    lines.begin("A")
    lines.begin("B")
    lines.told("A", "train", 300, 50, "epoch 1/6  loss 2.302  lr 0.01")
    lines.told("B", "scan", 1, 0, "")
    with lines.kept_up():
        until(file, r"^bascule: 0 of 8 cells done; A: train 50/300, \d+ s so far; B: scan, \d+ s so far$")
        lines.told("B", "", 0, 0, "")
        until(file, r"A: train 50/300, \d+ s so far; B, \d+ s so far$")
        lines.end("A", 1.0, None)
        until(file, r"^bascule: 1 of 8 cells done; B, \d+ s so far$")


def test_lines_keep_their_distance() -> None:
    log, file = console()
    lines = Lines(log, 2, every=0.2)
    began = time.monotonic()
    with lines.kept_up():
        until(file, r"(?s)\n.*\n.*\n")
    assert time.monotonic() - began >= 0.6
    lines = Lines(log, 2, every=3600)
    written = file.getvalue()
    with lines.kept_up():
        time.sleep(0.05)
    assert file.getvalue() == written


def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, text)

    ended: list[int] = []
    with console_progress(Console(file=Full(), force_terminal=False), 1, lambda: ended.append(1)) as progress:
        progress.end("A", 1.0, None)
    assert ended == [1]


def test_a_terminal_shows_bars_and_no_lines() -> None:
    log, file = console(terminal=True)
    with console_progress(log, 2) as progress:
        assert isinstance(progress, Bars)
        progress.begin("A")
        with progress.stage("train", 3):
            progress.update(1, "epoch 1/3")
        progress.end("A", 1.0, None)
    assert "bascule: " not in file.getvalue()
    assert "\x1b[" in file.getvalue()


def test_a_terminal_shows_one_bar_for_each_of_several_cells() -> None:
    log, file = console(terminal=True, width=120)
    with console_progress(log, 3) as progress:
        assert isinstance(progress, Bars)
        for label in "AB":
            progress.begin(label)
        progress.told("A", "train", 300, 50, "epoch 1/6")
        progress.told("B", "", 0, 0, "")
        progress.told("B", "scan", 7, 2, "")
        written = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", until(file, r"2/7"))
        assert re.search(r"train .*50/300 .* A  epoch 1/6\s*\n\s*scan .* 2/7 .* B\s", written)
        progress.end("B", 1.0, "it failed")
        progress.begin("C")
        progress.end("A", 1.0, None)
