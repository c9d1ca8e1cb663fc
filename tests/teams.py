"""Processes that work together, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LEAVE = "import os, sys; sys.stdout.flush(); os._exit(0)"
"""How a process of a team ends, as the command does: leaving the usual way, Gloo may end it with SIGABRT."""


def members(arguments: Sequence[str], size: int = 2, **options: Any) -> list[subprocess.Popen[str]]:
    """So many processes of one Python command line, which can meet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests.parent / "src"), str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    known = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    known |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **known, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        for rank in range(size)
    ]


def together(program: str, *words: str, size: int = 2) -> list[str]:
    """What each process of a team prints; all run the same program."""
    started = members(["-c", f"{program}\n{LEAVE}", *words], size)
    said = [member.communicate(timeout=300)[0] for member in started]
    assert [member.returncode for member in started] == [0] * size
    return said
