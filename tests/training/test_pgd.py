"""Adversarial training: what one loss does, on nets small enough to work out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.images import Splits
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.settings import Training
from bascule.training.standard import Standard

WEIGHT = torch.tensor([[0.0, 0, 0, 0], [1, -2, 0.5, 4]])
X = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.05, 0.9, 0.5, 0.95]]).reshape(2, 1, 2, 2)
"""Two images, one of them near the edges of [0, 1]."""
Y = torch.tensor([0, 0])

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
statistics = pytest.mark.parametrize("batch_norm", ["running", "batch"])


def loss_of(objective: Pgd, model: nn.Module, x: Tensor, y: Tensor, *, progress: float = 0.9, seed: int = 0) -> Tensor:
    given = x.clone()
    loss = objective.loss(model, x, y, progress=progress, generator=rng.stream(seed, "test"))
    assert torch.equal(x, given)
    return loss


def linear_net() -> nn.Module:
    """Logits 0 and `WEIGHT[1] . x`: raising the loss of label 0 means going along the signs of the weights."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    net[1].weight.data.copy_(WEIGHT)
    return net.train()


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    draws = rng.stream(0, "batch")
    return torch.rand(12, 1, 8, 8, generator=draws), torch.randint(10, (12,), generator=draws)


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_on_a_linear_net_it_ends_in_the_worst_corner(steps: int) -> None:
    # The default step crosses the ball, so the end does not depend on the start.
    eps = 0.1
    worst = (X + eps * WEIGHT[1].sign().reshape(1, 1, 2, 2)).clamp(0, 1)
    wanted = F.softplus((worst.flatten(1) * WEIGHT[1]).sum(1)).mean()
    assert loss_of(Pgd(eps=eps, steps=steps), linear_net(), X, Y).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_in_l2_it_goes_along_the_weights() -> None:
    eps = 0.1
    worst = X[:1] + eps * (WEIGHT[1] / WEIGHT[1].norm()).reshape(1, 1, 2, 2)
    wanted = F.softplus((worst.flatten(1) * WEIGHT[1]).sum(1)).mean().item()
    found = loss_of(Pgd(norm="l2", eps=eps, steps=20), linear_net(), X[:1], Y[:1]).item()
    # The clean loss is 1.91; the part of the start across the weights never dies out entirely.
    assert 0.995 * wanted < found <= wanted * (1 + 1e-6)


def test_the_step_size_is_used(recorder) -> None:
    # From the middle of [0, 1], one step of a thousandth leads at most that far from the start.
    near, far = recorder(linear_net()), recorder(linear_net())
    loss_of(Pgd(eps=0.1, steps=1, step_size=1e-3), near, X[:1], Y[:1])
    loss_of(Pgd(eps=0.1, steps=3, step_size=1e-3), far, X[:1], Y[:1])
    assert (near.seen[-1] - near.seen[0]).abs().amax().item() == pytest.approx(1e-3, rel=1e-3)
    assert (far.seen[-1] - far.seen[0]).abs().amax().item() == pytest.approx(3e-3, rel=1e-3)


# --- warm-up ---------------------------------------------------------------------------------------------------------


@norms
@statistics
def test_at_the_start_of_a_warm_up_the_loss_is_the_clean_one(norm: Any, batch_norm: Any, make_net, batch) -> None:
    objective = Pgd(norm=norm, eps=0.3, steps=2, warmup=0.5, batch_norm=batch_norm)
    found = loss_of(objective, make_net(dropout=0.0), *batch, progress=0.0)
    clean = F.cross_entropy(make_net(dropout=0.0)(batch[0]), batch[1])
    assert torch.equal(found, clean)
    assert loss_of(objective, make_net(dropout=0.0), *batch, progress=0.5) > clean + 0.05


@pytest.mark.parametrize(
    ("warmup", "progress", "share"),
    [(0.0, 0.0, 1.0), (0.5, 0.25, 0.5), (0.5, 0.5, 1.0), (0.5, 0.9, 1.0), (1.0, 0.1, 0.1)],
    ids=str,
)
def test_the_radius_rises_with_progress(warmup: float, progress: float, share: float, recorder) -> None:
    model = recorder(linear_net())
    loss_of(Pgd(eps=0.2, steps=2, warmup=warmup), model, X[:1], Y[:1], progress=progress)
    assert (model.seen[-1] - X[:1]).abs().amax().item() == pytest.approx(share * 0.2, rel=1e-5)


def test_the_step_rises_with_the_radius(recorder) -> None:
    model = recorder(linear_net())
    loss_of(Pgd(eps=0.2, steps=1, step_size=0.01, warmup=1.0), model, X[:1], Y[:1], progress=0.5)
    assert (model.seen[-1] - model.seen[0]).abs().amax().item() == pytest.approx(0.005, rel=1e-3)


# --- batch norm ------------------------------------------------------------------------------------------------------


@statistics
def test_the_attack_leaves_no_mark_on_running_statistics(batch_norm: Any, make_net, batch, recorder) -> None:
    model = recorder(make_net())
    loss_of(Pgd(eps=0.1, steps=3, restarts=2, batch_norm=batch_norm), model, *batch)
    twin = make_net()
    twin(model.seen[-1])  # all that may update: one pass over the adversarial images
    wanted = {key: value for key, value in twin.state_dict().items() if "running" in key or "tracked" in key}
    assert len(wanted) == 3
    assert wanted["1.num_batches_tracked"] == 1
    for key, value in wanted.items():
        assert torch.equal(model.net.state_dict()[key], value), key


@pytest.mark.parametrize(("batch_norm", "mode"), [("running", False), ("batch", True)])
def test_the_attack_uses_the_asked_statistics(batch_norm: Any, mode: bool, make_net, batch, recorder) -> None:
    model = recorder(make_net())
    loss_of(Pgd(eps=0.1, steps=3, batch_norm=batch_norm), model, *batch)
    assert model.modes == [mode, mode, mode, True]
    assert model.frozen == [True, True, True, False], "the attack differentiates parameters for nothing"


def test_batch_and_running_statistics_find_different_images(make_net, batch, recorder) -> None:
    found = []
    for batch_norm in ("running", "batch"):
        model = recorder(make_net(dropout=0.0))
        loss_of(Pgd(eps=0.1, steps=3, batch_norm=batch_norm), model, *batch)
        found.append(model.seen[-1])
    assert not torch.equal(*found)


# --- restarts --------------------------------------------------------------------------------------------------------


class Waves(nn.Module):
    """Many local maxima, so that the start decides."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(40.0))

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(self.scale * x.flatten(1)).sum(1)
        return torch.stack([wave, -wave], dim=1)


def test_each_image_is_trained_on_its_own_worst_restart(recorder) -> None:
    x, y = torch.rand(30, 1, 2, 2, generator=rng.stream(0, "images")), torch.arange(30) % 2
    settings = {"eps": 0.2, "steps": 2, "step_size": 0.01}
    draws, tries = rng.stream(3, "test"), []
    for _ in range(3):
        model = recorder(Waves())
        Pgd(**settings).loss(model, x, y, progress=0.5, generator=draws)
        tries.append(F.cross_entropy(Waves()(model.seen[-1]), y, reduction="none"))
    losses = torch.stack(tries)
    assert len(losses.argmax(0).unique()) == 3, "a test in which every restart is somebody's worst"
    found = Pgd(**settings, restarts=3).loss(Waves(), x, y, progress=0.5, generator=rng.stream(3, "test"))
    assert found.item() == pytest.approx(losses.amax(0).mean().item(), rel=1e-6)


# --- leaving no trace ------------------------------------------------------------------------------------------------


@statistics
def test_parameters_get_gradients_and_modes_stay(batch_norm: Any, make_net, batch) -> None:
    net = make_net()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    loss = loss_of(Pgd(eps=0.1, steps=2, restarts=2, batch_norm=batch_norm), net, *batch)
    assert [module.training for module in net.modules()] == modes
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["0.bias"]
    assert all(p.grad is None for p in net.parameters())
    loss.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == ["0.bias"]


def test_modes_come_back_after_an_exception(make_net, batch) -> None:
    net = make_net()
    with pytest.raises(IndexError):
        loss_of(Pgd(eps=0.1), net, batch[0], batch[1] + 99)
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad for p in net.parameters())


@norms
@statistics
def test_on_a_trained_net_the_adversarial_loss_is_higher(norm: Any, batch_norm: Any, make_net, digits: Splits) -> None:
    net = make_net(dropout=0.0)
    train(net, digits.train, Training(objective=Standard(), epochs=3, batch_size=64, lr=0.01), seed=0)
    net.train()
    x, y = digits.test.batch(torch.arange(100)), digits.test.labels[:100]
    clean = F.cross_entropy(net(x), y)
    eps = 0.1 if norm == "linf" else 0.7
    assert loss_of(Pgd(norm=norm, eps=eps, batch_norm=batch_norm), net, x, y) > 1.3 * clean
