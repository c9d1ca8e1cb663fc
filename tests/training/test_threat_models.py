"""Training in other threat models than Linf does what it is for, on short trainings with real images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bascule.attacks.run import run_attack
from bascule.core import catalog, rng
from bascule.core.images import Splits
from bascule.training.loop import train
from bascule.training.settings import Training

SCHEDULE: dict[str, Any] = {"epochs": 8, "batch_size": 50, "lr": 0.01, "schedule": "one-cycle"}
L1 = {"name": "pgd", "norm": "l1", "eps": 3.0, "steps": 10}


def trained(objective: Any, digits: Splits) -> torch.nn.Module:
    """A small network after a short training."""
    net = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32}).initialised((1, 8, 8), 10, seed=0)
    few = digits.train.at(torch.arange(600))
    train(net, few, Training(objective=catalog.build("train", objective), **SCHEDULE), seed=0)
    return net


def robust(net: torch.nn.Module, attack: Any, digits: Splits) -> float:
    """Share of 200 test images given their label under the attack."""
    test = digits.test.at(torch.arange(200))
    x = test.batch(torch.arange(len(test)))
    worst = run_attack(net, catalog.build("attack", attack), x, test.labels, generator=rng.stream(0, "attack"))
    return (worst.prediction == test.labels).float().mean().item()


@pytest.fixture(scope="module")
def ordinary(digits: Splits) -> torch.nn.Module:
    return trained("standard", digits)


@pytest.mark.parametrize("name", ["pgd", "trades", "mart"])
def test_training_in_l1_withstands_more_in_l1(name: str, ordinary: torch.nn.Module, digits: Splits) -> None:
    net = trained({"name": name, "norm": "l1", "eps": 3.0, "steps": 5}, digits)
    assert robust(net, L1, digits) > robust(ordinary, L1, digits) + 0.15


MOTIONS = {"name": "spatial", "degrees": 25.0, "pixels": 0.0, "angles": 7, "shifts": 1}
TRIES = {"name": "spatial", "degrees": 25.0, "pixels": 0.0, "search": "random", "tries": 5}


def test_training_against_motions_withstands_motions(ordinary: torch.nn.Module, digits: Splits) -> None:
    net = trained({"name": "against", "attacks": TRIES}, digits)
    assert robust(net, MOTIONS, digits) > robust(ordinary, MOTIONS, digits) + 0.15


@pytest.mark.parametrize("strategy", ["worst", "random", "mean"])
def test_training_against_two_withstands_both(strategy: str, ordinary: torch.nn.Module, digits: Splits) -> None:
    pgd = {"name": "pgd", "eps": 0.1, "steps": 3}
    net = trained({"name": "against", "attacks": [TRIES, pgd], "strategy": strategy}, digits)
    for attack in (MOTIONS, {**pgd, "steps": 10}):
        assert robust(net, attack, digits) > robust(ordinary, attack, digits) + 0.1


def test_training_against_patches_withstands_patches(ordinary: torch.nn.Module, digits: Splits) -> None:
    net = trained({"name": "against", "attacks": {"name": "patch", "size": 2, "steps": 5}}, digits)
    patch = {"name": "patch", "size": 2, "steps": 20, "restarts": 2}
    assert robust(net, patch, digits) > robust(ordinary, patch, digits) + 0.1
