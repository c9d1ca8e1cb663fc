"""Every objective that is meant to harden a net does so, on a short training with real images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.core import catalog, rng
from bascule.core.images import Splits
from bascule.core.inference import predict
from bascule.training.loop import train
from bascule.training.settings import Training

EPS = 0.1


def accuracies(objective: Any, digits: Splits) -> tuple[float, float]:
    """Share of 200 test images given their label, clean and under PGD."""
    few, test = digits.train.at(torch.arange(600)), digits.test.at(torch.arange(200))
    net = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32}).initialised((1, 8, 8), 10, seed=0)
    schedule = {"epochs": 8, "batch_size": 50, "lr": 0.01, "schedule": "one-cycle"}
    train(net, few, Training(objective=catalog.build("train", objective), **schedule), seed=0)
    x = test.batch(torch.arange(len(test)))
    worst = run_attack(net, Pgd(eps=EPS, steps=10), x, test.labels, generator=rng.stream(0, "attack"))
    clean = (predict(net, test) == test.labels).float().mean().item()
    return clean, (worst.prediction == test.labels).float().mean().item()


@pytest.fixture(scope="module")
def ordinary(digits: Splits) -> float:
    return accuracies("standard", digits)[1]


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "pgd", "eps": EPS, "steps": 3},
        {"name": "fast", "eps": EPS},
        {"name": "fgsm-targeted", "eps": EPS},
        {"name": "trades", "eps": EPS, "steps": 3},
        {"name": "mart", "eps": EPS, "steps": 3},
        {"name": "lipschitz", "weight": 0.05},
        {"name": "lipschitz", "weight": 0.05, "estimate": "random"},
        {"name": "lipschitz", "weight": 0.01, "estimate": "random", "inner": {"name": "fast", "eps": EPS}},
    ],
    ids=["pgd", "fast", "fgsm-targeted", "trades", "mart", "lipschitz", "lipschitz-random", "lipschitz-fast"],
)
def test_it_withstands_more_than_ordinary_training(objective: Any, ordinary: float, digits: Splits) -> None:
    clean, robust = accuracies(objective, digits)
    assert clean > 0.85
    assert robust > ordinary + 0.08
