"""Starting this very command in several processes of this machine, which work together. Loads no torch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_PROGRAM = """\
import json, sys
path, starter, *sys.argv = sys.argv[1:]
sys.path[:] = json.loads(path)
from bascule.core.host import end_with
end_with(int(starter))
from bascule.cli import main
main()
"""
_PATIENCE = 10.0
"""Seconds that the others may take to end when one has: they notice, and say what is kept."""
_INTERVAL = 0.1


def devices_of(device: str) -> list[str]:
    """`cuda:0,1` and `cuda:0,cuda:1` as `cuda:0` and `cuda:1`; `cpu,cpu` as two processes on the processor."""
    names: list[str] = []
    for word in (part.strip() for part in device.split(",")):
        kind = names[-1].partition(":")[0] if names and word.isdecimal() else ""
        names.append(f"{kind}:{word}" if kind else word)
    return names


def start_together(size: int, tell: Callable[[str], object]) -> int:
    """Run the command of this process again in so many processes that meet; what they print goes where its own would.

    Ctrl-C reaches all of them by the terminal; another signal to end is passed on, and what cannot be (SIGKILL) they
    notice. If one ends with an error, the others must follow.

    Args:
        size: How many.
        tell: Is told of one that was killed.

    Returns:
        The exit code: of the first process that has one other than 0.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // size))),
    }
    path = json.dumps([str(entry) for entry in sys.path])
    command = [sys.executable, "-c", _PROGRAM, path, str(os.getpid()), *sys.argv]
    members = [
        subprocess.Popen(command, env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(size)
    ]
    stopped: list[float] = []
    killed: set[int] = set()
    try:
        with _passing_on(members, stopped):
            _wait(members, stopped, killed)
    finally:
        killed |= _alive(members)
        _end(members, signal.SIGKILL)
    codes = [member.wait() for member in members]
    for number in (number for number, code in enumerate(codes) if code == -signal.SIGKILL and number not in killed):
        tell(f"process {number + 1} of {size} was killed by SIGKILL, perhaps for want of memory")
    code = next(filter(None, codes), 0)
    return code if code >= 0 else 128 - code


@contextmanager
def _passing_on(members: Sequence[subprocess.Popen[Any]], stopped: list[float]) -> Iterator[None]:
    """Inside, what would end this process ends the others, and it waits for them; `stopped` is told when Ctrl-C was
    pressed, which they hear themselves."""
    known = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: stopped.append(time.monotonic())),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: _end(members, signal.SIGTERM)),
    }
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)


def _wait(members: Sequence[subprocess.Popen[Any]], stopped: list[float], killed: set[int]) -> None:
    """Until all have ended, or one has failed and the others had time to notice; `killed` is told of those that waited
    for their device and heard nothing else."""
    failed: float | None = None
    asked = False
    while _alive(members):
        now = time.monotonic()
        if failed is None and any(member.poll() for member in members):
            failed = now
        if failed is not None and now - failed > _PATIENCE:
            killed |= _alive(members) if asked else set()
            _end(members, signal.SIGKILL if asked else signal.SIGTERM)
            failed, asked = now, True
        if stopped and now - stopped[0] > _PATIENCE:  # nobody else has heard it
            _end(members, signal.SIGINT)
            stopped.clear()
        time.sleep(_INTERVAL)


def _alive(members: Sequence[subprocess.Popen[Any]]) -> set[int]:
    return {number for number, member in enumerate(members) if member.poll() is None}


def _end(members: Sequence[subprocess.Popen[Any]], how: signal.Signals) -> None:
    for member in members:
        if member.poll() is None:
            member.send_signal(how)
