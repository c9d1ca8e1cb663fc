"""Two processes of one piece of work exchange numbers and objects; one alone needs nobody."""

from __future__ import annotations

import json

import torch

from bascule.core.team import Team, joined
from teams import together

MEMBER = """\
import json, torch
from bascule.core.team import joined
with joined(torch.device("cpu")) as team:
    parts = [torch.full((2, 3), float(team.rank + 1)), torch.arange(3) * team.rank, torch.tensor(0.5)]
    team.sum(parts)
    said = [[part.tolist() for part in parts], team.gather("ab"[team.rank]), team.agreed(team.rank + 7), team.leads]
print(json.dumps(said))
"""


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
