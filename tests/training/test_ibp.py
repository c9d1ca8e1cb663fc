"""Certified training: schedules and losses worked out by hand, and what a short training brings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.certifiers.run import run_certifier
from bascule.core import catalog, rng
from bascule.core.images import Splits
from bascule.training import crown_ibp as crown_ibp_module
from bascule.training import ibp as ibp_module
from bascule.training._certified import ramp_share
from bascule.training.contract import Objective
from bascule.training.crown_ibp import CrownIbp
from bascule.training.ibp import Ibp
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.training.standard import Standard

objectives = pytest.mark.parametrize("kind", [Ibp, CrownIbp])

X = torch.tensor([0.5, 0.4]).reshape(1, 1, 1, 2)
Y = torch.tensor([0])


def two_layers() -> nn.Module:
    """Hidden a = x1 + x2 - 0.5 and b = x1 - x2; logits r(a) + r(b) + 0.3 and 2 r(b) - r(a)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net[1].weight.data, net[1].bias.data = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([-0.5, 0.0])
    net[3].weight.data, net[3].bias.data = torch.tensor([[1.0, 1.0], [-1.0, 2.0]]), torch.tensor([0.3, 0.0])
    return net.train()


def loss_of(objective: Objective, model: nn.Module, x: Tensor, y: Tensor, *, progress: float) -> Tensor:
    return objective.loss(model, x, y, progress=progress, generator=rng.stream(0, "test"))


# --- the schedule ----------------------------------------------------------------------------------------------------

SCHEDULE = [
    # progress, share of the ramp that is done; warm-up 0.2, ramp 0.4
    (0.0, 0.0),
    (0.19, 0.0),
    (0.2, 0.0),
    (0.3, 0.25),
    (0.4, 0.5),
    (0.5, 0.75),
    (0.6, 1.0),
    (0.999, 1.0),
]


@pytest.mark.parametrize(("progress", "share"), SCHEDULE)
def test_the_ramp(progress: float, share: float) -> None:
    assert ramp_share(progress, warmup=0.2, ramp=0.4) == pytest.approx(share)


def test_ramps_without_length() -> None:
    assert [ramp_share(p, warmup=0.5, ramp=0) for p in (0.0, 0.49, 0.5, 0.9)] == [0, 0, 1, 1]
    assert [ramp_share(p, warmup=0, ramp=0.5) for p in (0.0, 0.25, 0.5)] == [0, 0.5, 1]
    assert ramp_share(0.0, warmup=0, ramp=0) == 1


def test_the_papers_steps() -> None:
    # 60,001 steps: 2,000 of warm-up, then 10,000 of ramp.
    shares = [ramp_share(step / 60_001, warmup=Ibp(eps=0.4).warmup, ramp=Ibp(eps=0.4).ramp) for step in range(60_001)]
    assert sum(share == 0 for share in shares) in (2000, 2001)
    assert shares[7000] == pytest.approx(0.5, abs=1e-3)
    assert shares[11_999] < 1
    assert shares[12_002] == 1


@pytest.mark.parametrize(("progress", "share"), SCHEDULE)
def test_eps_kappa_and_beta_follow_it(progress: float, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    for module in (ibp_module, crown_ibp_module):
        real = module.bound_for_training

        def spy(model: nn.Module, x: Tensor, *, eps: float, real: Any = real) -> Any:
            seen.append(eps)
            return real(model, x, eps=eps)

        monkeypatch.setattr(module, "bound_for_training", spy)
    settings = {"eps": 0.1, "warmup": 0.2, "ramp": 0.4, "kappa_end": 0.3}
    loss = loss_of(Ibp(**settings), two_layers(), X, Y, progress=progress)
    mixed = loss_of(CrownIbp(**settings, beta_end=0.2), two_layers(), X, Y, progress=progress)
    assert seen == pytest.approx([share * 0.1] * 2 if share else [])
    # The margin 2 r(a) - r(b) + 0.3 at (0.5, 0.4) is 2 * 0.4 - 0.1 + 0.3 = 1. With radius e, a and b move by up to 2 e:
    # by intervals 1 - 6 e. By linear bounds, while b >= 0.1 - 2 e stays positive, 2 a - b = x1 + 3 x2 - 1 loses 4 e.
    # Beyond, b has the chord s (b - (0.1 - 2 e)) of slope s = (0.1 + 2 e) / (4 e), which is 2 e s in the middle; the
    # coefficients 2 - s and 2 + s still lose 4 e.
    e = share * 0.1
    interval = 1 - 6 * e
    linear = 1 - 4 * e if e <= 0.05 else 2 * 0.4 - (0.1 + 2 * e) / 2 + 0.3 - 4 * e
    kappa, beta = 1 - 0.7 * share, 1 - 0.8 * share
    wanted = kappa * math.log1p(math.exp(-1)) + (1 - kappa) * math.log1p(math.exp(-interval))
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    worst = beta * linear + (1 - beta) * interval
    wanted = kappa * math.log1p(math.exp(-1)) + (1 - kappa) * math.log1p(math.exp(-worst))
    assert mixed.item() == pytest.approx(wanted, rel=1e-5)


# --- the loss --------------------------------------------------------------------------------------------------------


def test_worst_case_logits_of_three_classes() -> None:
    # A linear net is bounded exactly: margins z0 - zj less eps * |w0 - wj|_1.
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 3)).train()
    net[1].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    net[1].bias.data.zero_()
    margins = torch.tensor([[0.0, 0.1 - 0.1 * 2, 1.4 - 0.1 * 3]])
    worst = F.cross_entropy(-margins, Y)
    clean = F.cross_entropy(torch.tensor([[0.5, 0.4, -0.9]]), Y)
    found = loss_of(Ibp(eps=0.1, kappa_end=0.25), net, X, Y, progress=0.9)
    assert found.item() == pytest.approx((0.25 * clean + 0.75 * worst).item(), rel=1e-6)


@objectives
def test_without_radius_or_before_the_ramp_the_loss_is_the_clean_one(kind: Any, make_net: Any, digits: Splits) -> None:
    x, y = digits.train.batch(torch.arange(12)), digits.train.labels[:12]
    clean = F.cross_entropy(make_net(dropout=0.0)(x), y)
    assert torch.equal(loss_of(kind(eps=0.0), make_net(dropout=0.0), x, y, progress=0.9), clean)
    assert torch.equal(loss_of(kind(eps=0.1, warmup=0.5), make_net(dropout=0.0), x, y, progress=0.4), clean)
    assert loss_of(kind(eps=0.1), make_net(dropout=0.0), x, y, progress=0.9) > 1.1 * clean


@objectives
def test_the_loss_is_above_that_of_any_perturbed_images(kind: Any, make_net: Any, digits: Splits) -> None:
    """Per batch: the worst-case part bounds the cross-entropy on every point of the ball."""
    x, y = digits.train.batch(torch.arange(32)), digits.train.labels[:32]
    net = make_net(dropout=0.0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    bounded = loss_of(kind(eps=0.1, kappa_end=0.0), net, x, y, progress=0.9)
    attack = catalog.build("train", {"name": "pgd", "eps": 0.1, "steps": 10})
    assert loss_of(attack, net, x, y, progress=0.9) <= bounded


@objectives
def test_running_statistics_move_once_and_by_the_images_themselves(kind: Any, make_net: Any, digits: Splits) -> None:
    x, y = digits.train.batch(torch.arange(12)), digits.train.labels[:12]
    net, twin = make_net(dropout=0.0), make_net(dropout=0.0)
    loss_of(kind(eps=0.1), net, x, y, progress=0.9)
    twin(x)
    for key, value in twin.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


@objectives
@pytest.mark.parametrize("field", ["warmup", "ramp", "kappa_end"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_shares_lie_between_zero_and_one(kind: Any, field: str, value: float) -> None:
    with pytest.raises(Exception, match=field):
        kind(eps=0.1, **{field: value})


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "low", "high"),
    [
        (Standard(), 0.0, 0.02),
        (Ibp(eps=0.0), 0.0, 0.02),
        (Ibp(eps=0.05), 0.5, 0.99),
        (CrownIbp(eps=0.05), 0.5, 0.99),
    ],
    ids=["standard", "none", "ibp", "crown-ibp"],
)
def test_a_short_training_is_what_certifies_images(objective: Any, low: float, high: float, digits: Splits) -> None:
    model = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32}).initialised((1, 8, 8), 10, seed=1)
    settings = Training(objective=objective, epochs=6, batch_size=32, lr=5e-3, schedule="one-cycle")
    train(model, digits.train, settings, seed=1)
    x, y = digits.test.batch(torch.arange(200)), digits.test.labels[:200]
    found = run_certifier(
        model, catalog.build("certify", {"name": "interval", "eps": 0.05}), x, y, generator=rng.stream(0, "certify")
    )
    share = found.certified.double().mean().item()
    assert low <= share <= high
    with torch.no_grad():
        assert (model(x).argmax(1) == y).double().mean() > 0.85
