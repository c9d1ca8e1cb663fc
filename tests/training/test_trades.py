"""TRADES: the prediction that changes most, by hand on linear nets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bascule.core import rng
from bascule.core.ball import ball
from bascule.training.search import divergence
from bascule.training.standard import Standard
from bascule.training.trades import Trades

X = torch.rand(12, 1, 8, 8, generator=rng.stream(0, "images"))
Y = torch.arange(12) % 10
SLOPE = [1.0, -2, 0.5, 4]

norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def loss_of(objective: Any, model: Any, x: Tensor = X, y: Tensor = Y, *, seed: int = 0) -> Tensor:
    return objective.loss(model, x, y, progress=0.5, generator=rng.stream(seed, "t"))


def test_divergence_by_hand() -> None:
    # p = (1/4, 3/4) and q = (1/2, 1/2): 1/4 ln 1/2 + 3/4 ln 3/2.
    p, q = torch.tensor([[1.0, 3.0]]).log(), torch.zeros(1, 2)
    assert divergence(p, q).tolist() == pytest.approx([0.25 * -0.693147 + 0.75 * 0.405465], rel=1e-5)
    assert divergence(p, p + 7).abs().max() < 1e-6
    assert divergence(torch.tensor([[0.0, 200.0]]), torch.tensor([[200.0, 0.0]])).item() == pytest.approx(200)


def test_on_a_linear_net_by_hand(linear, recorder) -> None:
    # The slope's sign times eps, to the side the first nudge chose: s . x = 1.75, plus or minus 0.1 * |s| = 0.75.
    x, y = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64)
    model = recorder(linear([[0.0] * 4, SLOPE]))
    loss = loss_of(Trades(eps=0.1, beta=3.0, steps=4), model, x, y)
    moved = (model.seen[-1] - x).flatten(1)
    side = moved[:, 0].sign()
    assert set(side.tolist()) == {-1.0, 1.0}
    assert torch.allclose(moved, 0.1 * side.unsqueeze(1) * torch.tensor(SLOPE).sign(), atol=1e-6)

    def bernoulli(score: Tensor) -> Tensor:
        return torch.stack([torch.sigmoid(-score), torch.sigmoid(score)], 1)

    p, q = bernoulli(torch.full((6,), 1.75)), bernoulli(1.75 + 0.75 * side)
    wanted = -p[:, 0].log().mean() + 3 * (p * (p / q).log()).sum(1).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_the_attack_is_in_eval_mode_and_the_loss_in_train_mode(make_net, recorder) -> None:
    model = recorder(make_net())
    loss_of(Trades(eps=0.1, steps=3), model)
    assert model.modes == [False] * 4 + [True] * 2
    assert torch.equal(model.seen[-2], X)
    assert int(model.net[1].num_batches_tracked) == 2


@norms
def test_images_stay_in_the_ball_and_the_prediction_changes(norm: Any, make_net) -> None:
    net = make_net(dropout=0.0)
    found = Trades(norm=norm, eps=0.2).inputs(net, X, Y, progress=0.5, generator=rng.stream(0, "t"))
    assert ball(norm, 0.2).distance(found, X).max() <= 0.2 + 1e-6
    start = ball(norm, 0.2).random_point(X, generator=rng.stream(1, "t"))
    net.eval()
    with torch.no_grad():
        assert (divergence(net(X), net(found)) > divergence(net(X), net(start))).all()


def test_the_label_does_not_guide_the_attack(make_net) -> None:
    found, other = (
        Trades(eps=0.1).inputs(make_net(), X, y, progress=0.5, generator=rng.stream(0, "t")) for y in (Y, (Y + 1) % 10)
    )
    assert torch.equal(found, other)


def test_beta_zero_is_ordinary_training_with_its_memory(make_net) -> None:
    ours, theirs = make_net(dropout=0.0), make_net(dropout=0.0)
    assert torch.equal(loss_of(Trades(eps=0.3, beta=0.0), ours), loss_of(Standard(), theirs))
    for found, wanted in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(found, wanted)


@norms
def test_eps_zero_is_ordinary_training(norm: Any, make_net) -> None:
    found = loss_of(Trades(norm=norm, eps=0.0), make_net(dropout=0.0))
    assert found.item() == pytest.approx(loss_of(Standard(), make_net(dropout=0.0)).item(), rel=1e-6)


def test_the_loss_is_linear_in_beta(make_net) -> None:
    losses = [loss_of(Trades(eps=0.1, beta=beta), make_net(dropout=0.0)).item() for beta in (0.0, 1.0, 3.0)]
    assert losses[1] > losses[0]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)


def test_both_predictions_are_learned_from(linear) -> None:
    # With p and q both moving, the gradient of KL(p || q) for the logits of p is p * (ln p/q - KL), of q it is q - p.
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    model = linear([[0.0, 0.0], [2.0, -1.0]])
    objective = Trades(eps=0.1, beta=2.0, steps=2)
    seen = objective.inputs(model, x, y, progress=0.5, generator=rng.stream(0, "t"))
    loss_of(objective, model, x, y).backward()
    with torch.no_grad():
        p, q = (model(each).softmax(1)[0] for each in (x, seen))
        kl = (p * (p / q).log()).sum()
        at_clean = p - F.one_hot(y, 2)[0] + 2 * p * ((p / q).log() - kl)
        at_seen = 2 * (q - p)
        wanted = at_clean.outer(x.flatten()) + at_seen.outer(seen.flatten())
    assert torch.allclose(model[1].weight.grad, wanted, atol=1e-6)
