"""Process settings: good defaults that a user's own setting overrides."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from bascule.core.host import is_running, rarely_collecting, settle, started_together
from orphans import check_ends_with_its_starter


def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    settle()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    settle()
    assert os.environ["OMP_WAIT_POLICY"] == "active"


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of the C library of Linux")
def test_freed_memory_is_kept() -> None:
    """Touching a large block again after freeing it causes no page faults once the setting is made."""
    code = """
import resource, sys
from bascule.core.host import settle
if sys.argv[1] == "settled":
    settle()
import torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    default, settled = (
        int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("default", "settled")
    )
    if default < 1000:
        pytest.skip("this C library keeps freed memory anyway")
    assert settled < default / 10


def test_the_collector_is_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with rarely_collecting():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before


@pytest.mark.parametrize(
    ("size", "together"), [(None, False), ("", False), ("0", False), ("1", False), ("2", True), ("16", True)]
)
def test_processes_that_were_started_together(
    size: str | None, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert started_together() == together


@pytest.mark.skipif(os.name == "nt", reason="a process keeps the number of one that has gone")
@pytest.mark.parametrize("platform", [sys.platform, "another"])
def test_a_process_ends_with_the_one_that_started_it(platform: str) -> None:
    """However that ended: told by the system where it can, else by looking."""
    child = f"import os, sys, time\nsys.platform = {platform!r}\nfrom bascule.core.host import end_with\n"
    child += "end_with(os.getppid())\nprint('up', flush=True)\ntime.sleep(300)"
    check_ends_with_its_starter(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])")


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_a_process_that_nobody_has_asked_after_does_not_go_on() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table of processes
    assert not is_running(process.pid)
    process.communicate()
    assert not is_running(process.pid)
