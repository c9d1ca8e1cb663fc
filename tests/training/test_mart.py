"""MART: the boosted and the weighted part, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bascule.core import rng
from bascule.core.ball import ball
from bascule.training.mart import Mart

X = torch.rand(12, 1, 8, 8, generator=rng.stream(0, "images"))
Y = torch.arange(12) % 10

norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def loss_of(objective: Any, model: Any, x: Tensor = X, y: Tensor = Y, *, seed: int = 0) -> Tensor:
    return objective.loss(model, x, y, progress=0.5, generator=rng.stream(seed, "t"))


@pytest.mark.parametrize(("y", "label", "rival"), [(0, 0.5, 0.3), (1, 0.3, 0.5), (2, 0.2, 0.5)])
def test_the_boosted_part_by_hand(y: int, label: float, rival: float, linear) -> None:
    # Logits that ignore the image: softmax (0.5, 0.3, 0.2), and no divergence.
    model = linear([[0.0]] * 3, [math.log(0.5), math.log(0.3), math.log(0.2)])
    loss = loss_of(Mart(eps=0.1), model, torch.full((1, 1, 1, 1), 0.5), torch.tensor([y]))
    assert loss.item() == pytest.approx(-math.log(label) - math.log(1.0001 - rival), rel=1e-5)


def test_on_a_linear_net_by_hand(linear) -> None:
    # Logits 0 and 2a - b at (0.5, 0.5): 0.5; the attack on label 0 adds 0.1 * 3, on label 1 takes it away.
    model, x = linear([[0.0, 0.0], [2.0, -1.0]]), torch.full((2, 1, 1, 2), 0.5)
    loss = loss_of(Mart(eps=0.1, beta=4.0, steps=4), model, x, torch.tensor([0, 1]))

    def part(score: float, attacked: float, y: int) -> float:
        p, q = ([1 - s, s] for s in (1 / (1 + math.exp(-score)), 1 / (1 + math.exp(-attacked))))
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        return -math.log(q[y]) - math.log(1.0001 - q[1 - y]) + 4 * kl * (1 - p[y])

    assert loss.item() == pytest.approx((part(0.5, 0.8, 0) + part(0.5, 0.2, 1)) / 2, rel=1e-4)


def test_a_rival_without_doubt_costs_much_but_not_everything(linear) -> None:
    model = linear([[0.0]] * 2, [-50.0, 50.0])
    loss = loss_of(Mart(eps=0.1), model, torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]))
    assert loss.item() == pytest.approx(100 - math.log(1e-4), rel=1e-3)
    loss.backward()
    assert model[1].bias.grad.isfinite().all()


def test_a_confident_right_prediction_is_not_pulled() -> None:
    # The divergence counts for images in so far as they are misclassified when clean.
    logits = torch.nn.Parameter(torch.tensor([[20.0, 0.0], [0.0, 1.0]]))

    class Fixed(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return logits[1:] if (x != 0.5).any() else logits[:1]

    model, x = Fixed(), torch.full((1, 1, 1, 1), 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mart, "inputs", lambda *_, **__: x + 0.1)
        without, heavy = (loss_of(Mart(eps=0.1, beta=beta), model, x, torch.tensor([0])).item() for beta in (0.0, 1e3))
    assert heavy == pytest.approx(without, rel=1e-4)


def test_the_attack_is_in_eval_mode_and_the_loss_in_train_mode(make_net, recorder) -> None:
    model = recorder(make_net())
    loss_of(Mart(eps=0.1, steps=3), model)
    assert model.modes == [False] * 3 + [True] * 2
    assert torch.equal(model.seen[-2], X)


@norms
def test_images_stay_in_the_ball(norm: Any, make_net) -> None:
    found = Mart(norm=norm, eps=0.2).inputs(make_net(), X, Y, progress=0.5, generator=rng.stream(0, "t"))
    assert 0.19 < ball(norm, 0.2).distance(found, X).max() <= 0.2 + 1e-6


def test_the_loss_is_linear_in_beta(make_net) -> None:
    losses = [loss_of(Mart(eps=0.1, beta=beta), make_net(dropout=0.0)).item() for beta in (0.0, 1.0, 3.0)]
    assert losses[1] > losses[0]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-3)
