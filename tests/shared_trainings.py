"""Trainings whose batches are cut in two, taken by whoever runs this file: one process, or two together.

`python shared_trainings.py FILE` takes them all and, in the first process, writes what came of them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.rng import borrowed_global_stream
from bascule.core.team import ALONE, Team, joined
from bascule.testing.cases import mixed_net
from bascule.testing.courses import Kept, few
from bascule.training.awp import WeightPerturbation
from bascule.training.contract import Objective
from bascule.training.loop import train
from bascule.training.settings import Augment, Training
from objectives import objective

IMAGES, EPOCHS = few().at(torch.arange(24)), 4
CONTINUED = 3
"""The checkpoint, after as many steps and one, that a training is continued from."""


class Taken(NamedTuple):
    """What came of a training."""

    weights: dict[str, Tensor]
    """With the buffers."""
    losses: list[float]
    checkpoint: bytes
    """After some steps."""


class Judge:
    """Takes the second epoch for the best."""

    name = "judged"

    def __call__(self, epoch: int) -> float:
        return -abs(epoch - 2)


def quick(name: str) -> Objective:
    """The objective, with a short search where it searches."""
    found = objective(name)
    return replace(found, steps=2) if hasattr(found, "steps") else found


def trainings() -> dict[str, Training]:
    """One with each objective there is, and one with all that can be done around it."""
    common: dict[str, Any] = {"epochs": EPOCHS, "batch_size": 12, "lr": 0.005, "shares": 2}
    found = {name: Training(objective=quick(name), **common) for name in catalog.names("train")}
    around = {"augment": Augment(pad=1, flip=True), "awp": WeightPerturbation(), "ema": 0.9, "clip_norm": 0.5}
    found["all around it"] = Training(objective=quick("pgd"), optimizer="sgd", **around, **common)
    found["the best epoch"] = Training(objective=quick("trades"), keep="best", **common)
    # Their sums are rounded otherwise: too much for the signs that a search goes by.
    found["four shares"] = Training(objective=quick("standard"), **{**common, "shares": 4})
    return found


def network() -> nn.Module:
    """With dropout and batch norm; small steps change little, so that rounding stays rounding."""
    with borrowed_global_stream(0, "net"):
        return mixed_net()


def taken(training: Training, team: Team = ALONE, checkpoint: bytes | None = None) -> Taken:
    """A training from its beginning, or continued."""
    net, kept = network(), Kept(*([] if checkpoint is None else [checkpoint]))
    judge = Judge() if training.keep == "best" else None
    curve = train(net, IMAGES, training, seed=1, checkpoints=kept, checkpoint_seconds=0, judge=judge, team=team)
    state = kept.states[CONTINUED] if checkpoint is None and team.leads else b""
    return Taken(dict(net.state_dict()), [point["loss"] for point in curve], state)


def plain(**more: Any) -> Training:
    """Without any draw and any part of a network that goes by the other images of its batch."""
    return Training(objective=objective("standard"), epochs=3, batch_size=12, optimizer="sgd", lr=0.05, **more)


def norm_net() -> nn.Module:
    """With batch norm, in which all is learnt from both ways through it, and no dropout."""
    with borrowed_global_stream(0, "net"):
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8)),
            *(nn.BatchNorm1d(8, momentum=None, affine=False), nn.ReLU(), nn.Linear(8, 10)),
        )


def synced(name: str, team: Team = ALONE) -> dict[str, Tensor]:
    """What a network with batch norm ends with, trained on the whole of each batch: by one, or by a team in shares."""
    net = norm_net()
    training = replace(plain(), objective=objective(name), shares=team.size, sync_batch_norm=team.size > 1)
    train(net, IMAGES, training, seed=1, team=team)
    return dict(net.state_dict())


SYNCED = ("standard", "lipschitz")
"""Objectives that draw nothing; the second one differentiates twice."""


class Short(nn.Sequential):
    """Finds no memory in the third pass of the second process."""

    def __init__(self, team: Team) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.left = 2 if team.rank == 1 else 100

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise MemoryError("none left")
        answer: Tensor = super().forward(x)
        return answer


def stopped(team: Team, training: Training, net: nn.Module) -> str:
    """How a training fails, in all processes alike."""
    with pytest.raises(Exception) as failed:  # noqa: PT011  (what is raised is looked at)
        train(net, IMAGES, training, seed=1, team=team)
    assert team.is_common(failed.value)
    return f"{type(failed.value).__name__}: {failed.value}"


def main(file: str) -> None:
    with joined() as team:
        told = team.gather(stopped(team, plain(shares=2), Short(team)))
        assert told == ["RuntimeError: process 1 of 2: MemoryError: none left", "MemoryError: none left"]
        told = team.gather(stopped(team, replace(plain(shares=2), lr=1e30, objective=quick("pgd")), network()))
        assert told[0].startswith("DivergedError: training diverged at step ")
        assert told[0] == told[1]
        found = {}
        for name, training in trainings().items():
            whole = taken(training, team)
            assert len({_packed(weights) for weights in team.gather(whole.weights)}) == 1, f"{name}: others elsewhere"
            again = taken(training, team, team.agreed(whole.checkpoint))
            assert _packed(again.weights) == _packed(whole.weights), f"{name}: other bytes when continued"
            found[name] = tuple(whole)
        together = {name: synced(name, team) for name in SYNCED}
        if team.leads:
            torch.save((found, together), file)


def _packed(weights: dict[str, Tensor]) -> bytes:
    return b"".join(value.numpy().tobytes() for value in weights.values())


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)  # as teams.LEAVE
