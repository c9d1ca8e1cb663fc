"""Two processes of one piece of work exchange numbers and objects; one alone needs nobody."""

from __future__ import annotations

import ast
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from bascule.core import team
from bascule.core.errors import RequestError
from bascule.core.team import ALONE, Team, joined
from teams import together


def test_one_alone() -> None:
    with joined() as one:
        assert one == Team()
        part = torch.ones(2)
        one.sum([part])
        assert (part.tolist(), one.gather(3), one.agreed(4)) == ([1, 1], [3], 4)


MEMBER = """\
import os, time, torch
from datetime import timedelta
import torch.distributed as dist
from bascule.core import team as teams
from bascule.core.errors import LostError, RequestError

def sums(*parts):
    team.sum(parts)
    return [part.tolist() for part in parts]

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

def tally(work):
    return team.tally(work, 2)

second = timedelta(seconds=1)
dist.init_process_group("gloo")
dist.distributed_c10d._set_pg_timeout(second)
with teams.joined() as team:
    waited = team.first(lambda: time.sleep(2) or 3)
assert dist.is_initialized()
with teams.joined() as team:
    said = [
        waited,
        sums(torch.full((2, 3), float(team.rank + 1)), torch.arange(3) * team.rank, torch.tensor(0.5)),
        sums(torch.ones(2, dtype=torch.bfloat16), torch.tensor([True, False]), torch.zeros(0)),
        sums(torch.arange(4.0).view(2, 2).T), sums(torch.tensor([2**40])), sums(torch.tensor([1j])),
        team.gather("ab"[team.rank]), team.agreed(team.rank + 7), team.leads,
        told(tally, lambda: [3, team.rank]),
        told(tally, lambda: [fail(MemoryError("none"), 1), 0]),
        told(tally, lambda: [fail(MemoryError("none"), 0, 1), 0]),
        told(tally, lambda: [5, 6]),
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
    print(said, flush=True)
    teams._PATIENCE = second
    with teams.joined() as hasty:
        try:
            hasty.first(lambda: time.sleep(2))
        except LostError as error:
            print(error, flush=True)
        if team.rank == 0:
            os._exit(0)
        try:
            team.gather(None)
        except LostError as error:
            print(error, team.is_common(error), flush=True)
        os._exit(0)  # as the command ends: Gloo's threads may abort one that ends otherwise
"""


def test_two_processes() -> None:
    """Also that one may wait for what another does alone, longer than the process group of a script allows."""
    first, second = (said.splitlines() for said in together(MEMBER))
    theirs = "RuntimeError: process 1 of 2: "
    numbers = [
        3,
        [[[3.0] * 3] * 2, [0, 1, 2], 1.0],
        [[2.0, 2.0], [True, False], []],
        *([[[0, 4], [2, 6]]], [[2**41]], [[2j]]),
        ["a", "b"],
    ]
    assert ast.literal_eval(first[0]) == [
        *(*numbers, 7, True, [6, 1], f"{theirs}MemoryError: none", "MemoryError: none", [10, 12]),
        *([0, 1], "RequestError: eps: too small", f"{theirs}OSError: no disk", "OSError: no disk"),
        *(f"{theirs}ValueError: early", f"{theirs}ValueError: late", 7, [0]),
        *("KeyError: 'gone'", "Own: ab", [0, 2, 4]),
    ]
    assert ast.literal_eval(second[0]) == [
        *(*numbers, 7, False, [6, 1], "MemoryError: none", "MemoryError: none", [10, 12]),
        *([0, 1], "RequestError: eps: too small", "OSError: no disk", "OSError: no disk"),
        *("ValueError: early", "ValueError: late", 8, [0]),
        *("KeyError: 'gone'", "RuntimeError: Own: ab", [1, 3]),
    ]
    assert second[1].startswith("the processes that work together cannot reach each other: ")
    assert "Timed out waiting 1000ms" in second[1]
    assert second[2] == "another of the processes that work together has gone False"


def test_processes_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "_MEETING", timedelta(milliseconds=300))
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=r"^the 2 processes that should work together cannot meet at 127.0.0.1:1: "):
        joined().__enter__()
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(RequestError, match=r"MASTER_ADDR expected, but not set. Start them with torchrun, all with"):
        joined().__enter__()


@pytest.mark.parametrize(("devices", "ways"), [("ab", ["gloo", "nccl"]), ("aa", ["gloo"])])
def test_a_way_for_sums_on_cuda(devices: str, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL refuses two processes on one device."""

    class Pair(Team):
        def gather(self, value: Any) -> list[Any]:
            assert value[1] == "a"
            return [(value[0], device) for device in devices]

    made: list[str] = []
    monkeypatch.setattr(dist, "new_group", lambda backend, **_: made.append(backend) or backend)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="a"))
    pair = Pair(0, 2, team._Ways())
    assert [pair._way(), pair._way(torch.device("cpu"))] == ["gloo"] * 2
    assert [pair._way(torch.device("cuda:0")) for _ in range(2)] == [ways[-1]] * 2
    assert made == ways


def test_alone_nothing_is_different() -> None:
    with pytest.raises(ZeroDivisionError):
        ALONE.share(lambda: 1 / 0)
    assert (ALONE.share(list), ALONE.alike(list), ALONE.first(list)) == ([[]], [], [])
    assert all(ALONE.takes(number) for number in range(3))
    assert ALONE.is_common(ValueError())
