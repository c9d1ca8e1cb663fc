"""Clipped gradients and smoothed labels: against torch's own and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.attacks.fgsm import Fgsm
from bascule.core import catalog, rng
from bascule.core.catalog import construct
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.training.against import Against
from bascule.training.contract import Smoothing
from bascule.training.lipschitz import Lipschitz
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.training.standard import Standard
from bascule.training.trades import Trades
from objectives import objective


def sgd(**changes: Any) -> Training:
    given = {"objective": Standard(), "epochs": 1, "batch_size": 70, "optimizer": "sgd", "momentum": 0.0, "lr": 1.0}
    return Training(**{**given, **changes})


# --- clipping --------------------------------------------------------------------------------------------------------


def test_a_step_is_as_long_as_the_clipped_gradient(few: Images, make_net: Callable) -> None:
    """One step of plain SGD at rate 1 is minus the gradient; against `torch.nn.utils.clip_grad_norm_` on a twin."""
    model, twin = make_net(dropout=0.0), make_net(dropout=0.0)
    order = torch.randperm(70, generator=rng.stream(0, "order", 0))
    F.cross_entropy(twin(few.batch(order)), few.labels[order]).backward()
    length = float(nn.utils.clip_grad_norm_(twin.parameters(), 0.3))
    assert length > 0.3
    before = [p.detach().clone() for p in model.parameters()]
    train(model, few, sgd(clip_norm=0.3), seed=0)
    steps = [old - p.detach() for old, p in zip(before, model.parameters(), strict=True)]
    assert float(torch.cat([step.flatten() for step in steps]).norm()) == pytest.approx(0.3, rel=1e-4)
    for step, p in zip(steps, twin.parameters(), strict=True):
        assert torch.allclose(step, p.grad, atol=1e-6)


def test_a_shorter_gradient_stays_as_it_is(few: Images, make_net: Callable) -> None:
    plain, clipped = make_net(), make_net()
    train(plain, few, sgd(lr=0.01), seed=0)
    train(clipped, few, sgd(lr=0.01, clip_norm=1e6), seed=0)
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), clipped.parameters(), strict=True))


# --- smoothing -------------------------------------------------------------------------------------------------------


def loss(made: Any, logits: Tensor, y: Tensor) -> float:
    class Answer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(logits)

        def forward(self, x: Tensor) -> Tensor:
            return self.logits.repeat(len(x) // len(logits), 1) + 0 * x.flatten(1).sum(1, keepdim=True)

    x = torch.full((len(y), 1, 2, 2), 0.5)
    return made.loss(Answer(), x, y, progress=0.0, generator=rng.stream(0, "smooth")).item()


def smoothing_objectives() -> list[str]:
    return [name for name in catalog.names("train") if isinstance(objective(name), Smoothing)]


def test_who_smooths() -> None:
    assert smoothing_objectives() == ["against", "fast", "fgsm-targeted", "pgd", "standard", "trades"]


@pytest.mark.parametrize(
    "made",
    [
        lambda e: Standard(label_smoothing=e),
        lambda e: catalog.build("train", {"name": "pgd", "eps": 0.1, "label_smoothing": e}),
        lambda e: catalog.build("train", {"name": "fast", "eps": 0.1, "label_smoothing": e}),
        lambda e: catalog.build("train", {"name": "fgsm-targeted", "eps": 0.1, "label_smoothing": e}),
        lambda e: Trades(eps=0.1, steps=1, label_smoothing=e),
        lambda e: Trades(eps=0.1, beta=0.0, label_smoothing=e),
        lambda e: Against(attacks=(Fgsm(eps=0.1), Fgsm(eps=0.2)), strategy="mean", label_smoothing=e),
        lambda e: Lipschitz(inner=Standard(label_smoothing=e)),
        lambda e: Lipschitz(inner=Standard(label_smoothing=e), weight=0.0),
    ],
    ids=["standard", "pgd", "fast", "fgsm-targeted", "trades", "trades-0", "against", "lipschitz", "lipschitz-0"],
)
def test_the_loss_is_the_one_worked_out_by_hand(made: Callable[[float], Any]) -> None:
    """Probabilities 1/2, 1/4, 1/4 of label 0: (1 - e) log 2 + e/3 (log 2 + 2 log 4). The model ignores its images."""
    logits, y = torch.tensor([[math.log(2), 0.0, 0.0]]), torch.tensor([0])
    assert loss(made(0.0), logits, y) == pytest.approx(math.log(2), rel=1e-5)
    wanted = 0.7 * math.log(2) + 0.1 * (math.log(2) + 2 * math.log(4))
    assert loss(made(0.3), logits, y) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in catalog.names("train") if name not in smoothing_objectives()])
def test_an_objective_for_which_it_means_nothing_refuses_it(name: str) -> None:
    settings = catalog.describe(objective(name)) | {"label_smoothing": 0.1}
    with pytest.raises(RequestError, match="unknown key 'label_smoothing'"):
        construct(Training, {"objective": settings, "epochs": 1})


def test_searches_go_by_the_labels_as_they_are(few: Images, make_net: Callable) -> None:
    x, y = few.batch(torch.arange(16)), few.labels[:16]
    found = []
    for smoothing in (0.0, 0.5):
        made = catalog.build("train", {"name": "pgd", "eps": 0.1, "label_smoothing": smoothing})
        found.append(made.inputs(make_net(), x, y, progress=0.5, generator=rng.stream(0, "search")))
    assert torch.equal(*found)
