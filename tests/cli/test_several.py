"""A command that several processes do: what is said of copies that srun starts, and how a stuck one is stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bascule.cli import stopping
from bascule.cli.several import start_on_each
from bascule.cli.stopping import stoppable

STUCK = """\
from bascule.cli import main, stopping
stopping.PATIENCE = 0.2
main()
"""
SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("more", "part", "told"),
    [
        ({}, None, True),
        ({"SLURM_PROCID": "1"}, None, False),  # said by one of them
        ({"SLURM_STEP_NUM_TASKS": "1"}, None, False),
        ({"WORLD_SIZE": "2"}, None, False),
        ({}, "1/2", False),
    ],
)
def test_copies_of_a_command_are_told(
    more: dict[str, str],
    part: str | None,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name, value in {**SRUN, **more}.items():
        monkeypatch.setenv(name, value)
    start_on_each("cpu", part)
    said = capsys.readouterr().err
    assert said.startswith("bascule: warning: srun started this command 2 times, and each does the whole") == told
    assert bool(said) == told


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_what_is_ending_already_is_not_disturbed(first: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable() as came:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(first)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):  # somebody at a keyboard means it
            signal.raise_signal(signal.SIGINT)
    assert came == [first, signal.SIGTERM, signal.SIGINT]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_what_passed_over_a_signal_can_still_be_stopped_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python raises nothing from where it collects garbage, and somebody's code may catch everything."""
    monkeypatch.setattr(stopping, "PATIENCE", 0.0)
    with stoppable() as came:
        for _ in range(2):
            time.sleep(0.01)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM, signal.SIGTERM]


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_a_process_that_waits_for_others_in_vain_can_be_stopped(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    team = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", STUCK, "run", "digits"]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **team})
    try:
        until = time.monotonic() + 120
        while not _listens(port):  # it waits for the other one
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
