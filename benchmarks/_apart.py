"""Jobs in processes of their own, whose memory can be told: each file that uses this starts itself with `--one`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from _interleaved import CLOCKS


@dataclass(frozen=True)
class Cost:
    """Of one job in its own process."""

    seconds: float
    mib: float
    """The peak above what the process held before."""
    cpu: float
    """Seconds of processor time, those of its processes among them."""


def cost_here(job: Callable[[], object], clock: str) -> None:
    """Do the job in this process and print what it cost."""
    marker = Path("/proc/self/clear_refs")
    if marker.is_file():
        marker.write_text("5")  # the peak counts from here
    before, busy, began = _memory("VmRSS"), _cpu(), CLOCKS[clock]()
    job()
    seconds = CLOCKS[clock]() - began
    print(json.dumps({"seconds": seconds, "mib": _memory("VmHWM") - before, "cpu": _cpu() - busy}))


def cost_apart(script: str, arguments: Sequence[str], threads: int) -> Cost:
    """What a process that ends in `cost_here` printed.

    Raises:
        ImportError: It lacks a package.
        SystemExit: It failed.
    """
    limits = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], str(threads))
    command = [sys.executable, script, *arguments, "--threads", str(threads)]
    done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        if last.startswith(("ImportError", "ModuleNotFoundError")):
            raise ImportError(last.partition(": ")[2])
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _memory(key: str) -> float:
    """A line of this process's status in MiB; where there is none, the peak since its start."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024
