"""A batch in shares is one step, whoever takes them: one process or several, also after an interruption."""

from __future__ import annotations

import pytest
import torch

import shared_trainings
from shared_trainings import Taken, taken, trainings
from teams import members


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Taken]:
    """All trainings, taken by two processes together."""
    file = tmp_path_factory.mktemp("shares") / "found"
    program = shared_trainings.__file__
    started = members([program, str(file)])
    for member in started:
        member.communicate(timeout=300)
    assert [member.returncode for member in started] == [0, 0]
    return {name: Taken(*values) for name, values in torch.load(file, weights_only=False).items()}


def check_same(one: Taken, other: Taken) -> None:
    assert one.losses == pytest.approx(other.losses, abs=1e-5)
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("name", trainings())
def test_two_processes_end_as_one_does(name: str, by_two: dict[str, Taken]) -> None:
    check_same(taken(trainings()[name]), by_two[name])


@pytest.mark.parametrize("name", trainings())
def test_one_goes_on_where_two_were_stopped(name: str, by_two: dict[str, Taken]) -> None:
    check_same(taken(trainings()[name], checkpoint=by_two[name].checkpoint), by_two[name])
