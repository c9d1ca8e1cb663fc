"""Two processes of one piece of work exchange numbers and objects; one alone needs nobody."""

from __future__ import annotations

import ast
import json

import pytest
import torch

from bascule.core.team import ALONE, Team, joined
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


FAILING = """\
import os, torch
from bascule.core.errors import LostError, RequestError
from bascule.core.team import joined

class Own(Exception):
    def __init__(self, one, other):
        super().__init__(one + other)

def told(call, work):
    try:
        return call(work)
    except Exception as error:
        assert team.is_common(error)
        return f"{type(error).__name__}: {error}"

def fail(error, *ranks):
    if team.rank in ranks:
        raise error
    return team.rank

with joined(torch.device("cpu")) as team:
    said = [
        told(team.share, lambda: fail(None)),
        told(team.share, lambda: fail(RequestError("too small", place=("eps",)), 1)),
        told(team.share, lambda: fail(OSError("no disk"), 1)),
        told(team.share, lambda: fail(OSError("no disk"), 0, 1)),
        told(team.share, lambda: [fail(ValueError("early"), 1), team.share(lambda: 1)]),
        told(team.share, lambda: [team.share(lambda: fail(ValueError("late"), 1)), team.share(lambda: 1)]),
        told(team.alike, lambda: team.rank + 7),
        told(team.first, lambda: torch.tensor([team.rank]).tolist()),
        told(team.first, lambda: fail(KeyError("gone"), 0)),
        told(team.first, lambda: fail(Own("a", "b"), 0)),
        [number for number in range(5) if team.takes(number)],
    ]
    parts = [torch.ones(2, dtype=torch.bfloat16), torch.tensor([True, False]), torch.zeros(0)]
    team.sum(parts)
    said.append([part.tolist() for part in parts])
    print(said, flush=True)
    if team.rank == 0:
        os._exit(0)
    try:
        team.gather(None)
    except LostError as error:
        print(error, team.is_common(error), flush=True)
        os._exit(0)  # as the command ends: Gloo's threads may abort one that ends otherwise
"""


def test_what_goes_wrong_goes_wrong_in_all() -> None:
    first, second = (said.splitlines() for said in together(FAILING))
    theirs = "RuntimeError: process 1 of 2: "
    assert ast.literal_eval(first[0]) == [
        *([0, 1], "RequestError: eps: too small", f"{theirs}OSError: no disk", "OSError: no disk"),
        *(f"{theirs}ValueError: early", f"{theirs}ValueError: late", 7, [0]),
        *("KeyError: 'gone'", "Own: ab", [0, 2, 4], [[2.0, 2.0], [True, False], []]),
    ]
    assert ast.literal_eval(second[0]) == [
        *([0, 1], "RequestError: eps: too small", "OSError: no disk", "OSError: no disk"),
        *("ValueError: early", "ValueError: late", 8, [0]),
        *("KeyError: 'gone'", "RuntimeError: Own: ab", [1, 3], [[2.0, 2.0], [True, False], []]),
    ]
    assert second[1] == "another of the processes that work together has gone False"


def test_alone_nothing_is_different() -> None:
    with pytest.raises(ZeroDivisionError):
        ALONE.share(lambda: 1 / 0)
    assert (ALONE.share(list), ALONE.alike(list), ALONE.first(list)) == ([[]], [], [])
    assert all(ALONE.takes(number) for number in range(3))
    assert ALONE.is_common(ValueError())
