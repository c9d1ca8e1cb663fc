"""Settings of the process that change speed and not results, and which processes run.

Imports nothing, so that it can run before torch loads.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PR_SET_PDEATHSIG = 1


def settle() -> None:
    """Make this process a good neighbour and quick on the CPU; to be called before torch is loaded.

    - Waiting threads sleep instead of spinning: with another job on the same cores, spinning makes small networks ten
      times slower and more. Setting OMP_WAIT_POLICY yourself overrides it.
    - glibc gives freed blocks over 32 MiB back to the system at once, and every large activation then starts with page
      faults; kept instead, an input gradient of a residual network takes half the time at 512 images. Not done where
      the C library has no such setting.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def rarely_collecting() -> Iterator[None]:
    """Inside, Python looks for garbage in cycles less often: where objects by the million are made to stay, it finds
    none and takes a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def started_together() -> bool:
    """Whether torchrun, or what sets the same variables, has started several processes of this command."""
    size = os.environ.get("WORLD_SIZE", "")
    return size.isdecimal() and int(size) > 1


def end_with(starter: int) -> None:
    """From now on this process ends when the one that started it has ended, also by SIGKILL, which nobody can pass on.

    Linux ends it at once, as soon as the thread has ended that started it; elsewhere it looks every second. Not on
    Windows, where a process keeps the number of one that has gone.

    Args:
        starter: Number of the process that started this one.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
    if prctl is not None and prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
        if os.getppid() != starter:  # it had gone before
            os._exit(1)
    elif os.name != "nt":
        threading.Thread(target=_end_after, args=(starter,), daemon=True).start()


def _end_after(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(1)
    os._exit(1)


def is_running(process: int) -> bool:
    """Whether a process of this machine goes on; yes where the system does not say."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in "ZX"  # ended, and whoever started it has not asked yet
