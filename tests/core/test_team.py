"""Two processes of one piece of work exchange numbers and objects; one alone needs nobody."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import torch

from bascule.core.team import Team, joined

MEMBER = """\
import json, torch
from bascule.core.team import joined
with joined(torch.device("cpu")) as team:
    parts = [torch.full((2, 3), float(team.rank + 1)), torch.arange(3) * team.rank, torch.tensor(0.5)]
    team.sum(parts)
    said = [[part.tolist() for part in parts], team.gather("ab"[team.rank]), team.agreed(team.rank + 7), team.leads]
print(json.dumps(said))
"""


def together(program: str, size: int = 2) -> list[str]:
    """What each process of a team prints; all run the same program."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    known = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    members = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **known, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said = [member.communicate(timeout=120)[0] for member in members]
    assert [member.returncode for member in members] == [0] * size
    return said


def test_two_processes() -> None:
    numbers = [[[3.0] * 3] * 2, [0, 1, 2], 1.0]
    first, second = map(json.loads, together(MEMBER))
    assert first == [numbers, ["a", "b"], 7, True]
    assert second == [numbers, ["a", "b"], 7, False]


def test_one_alone() -> None:
    with joined(torch.device("cpu")) as team:
        assert team == Team()
        part = torch.ones(2)
        team.sum([part])
        assert (part.tolist(), team.gather(3), team.agreed(4)) == ([1, 1], [3], 4)
