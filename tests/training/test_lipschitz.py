"""The cross-Lipschitz penalty against its definition, pair by pair."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import networks
from bascule.core import catalog, rng
from bascule.core.catalog import construct
from bascule.core.errors import RequestError
from bascule.core.images import Splits
from bascule.training import lipschitz
from bascule.training.contract import CrossEntropy
from bascule.training.lipschitz import Lipschitz, _all_directions, _roughness
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.settings import Training
from bascule.training.standard import Standard
from bascule.training.trades import Trades
from objectives import spec_of

CLASSES = 10
X = torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=rng.stream(0, "images"))
Y = torch.arange(6) % CLASSES
ADVERSARIAL = Pgd(eps=0.1, steps=2)


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, CLASSES), nn.Tanh()
    )


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, CLASSES), nn.SiLU()
    )


def made(build: Callable[[], nn.Module], *, training: bool = True) -> nn.Module:
    with rng.borrowed_global_stream(0, "net"):
        net = build().double()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return net.train(training)


def loss_of(objective: Any, net: nn.Module, *, x: Tensor = X, y: Tensor = Y, seed: int = 0) -> Tensor:
    return objective.loss(net, x, y, progress=0.5, generator=rng.stream(seed, "t"))


def by_definition(logits: Tensor, x: Tensor) -> Tensor:
    """1/(n K^2) sum over images and all pairs of logits, each difference differentiated by itself."""
    total = torch.zeros((), dtype=logits.dtype)
    for one, other in product(range(logits.shape[1]), repeat=2):
        difference = (logits[:, one] - logits[:, other]).sum()
        (gradient,) = torch.autograd.grad(difference, x, create_graph=True)
        total = total + gradient.square().sum()
    return total / (len(x) * logits.shape[1] ** 2)


nets = pytest.mark.parametrize("build", [plain, pooled, normed])
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
inners = pytest.mark.parametrize("inner", [Standard(), ADVERSARIAL], ids=["standard", "pgd"])


# --- exact -----------------------------------------------------------------------------------------------------------


@nets
@modes
@inners
def test_it_is_the_definition_and_so_is_its_gradient(build: Any, training: bool, inner: CrossEntropy) -> None:
    ours, theirs = made(build, training=training), made(build, training=training)
    found = loss_of(Lipschitz(inner=inner, weight=0.7), ours)
    seen = inner.inputs(theirs, X, Y, progress=0.5, generator=rng.stream(0, "t")).clone().requires_grad_(True)
    logits = theirs(seen)
    wanted = F.cross_entropy(logits, Y) + 0.7 * by_definition(logits, seen)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-10)
    assert wanted - F.cross_entropy(logits, Y) > 1e-3
    found.backward()
    wanted.backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-8, atol=1e-12), name


def test_on_a_linear_net_by_hand(linear) -> None:
    # |w_0 - w_1|^2 = 1 + 4 + 0.25 + 16 = 21.25, counted twice, over K^2 = 4.
    net, x, y = linear([[0.0] * 4, [1.0, -2, 0.5, 4]]), torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    found = loss_of(Lipschitz(weight=0.1), net, x=x, y=y)
    assert found.item() == pytest.approx(loss_of(Standard(), net, x=x, y=y).item() + 0.1 * 21.25 / 2, rel=1e-6)
    found.backward()
    # Its derivative for w_1 is w_1 - w_0, for w_0 the opposite; cross-entropy's is added.
    other = linear([[0.0] * 4, [1.0, -2, 0.5, 4]])
    loss_of(Standard(), other, x=x, y=y).backward()
    slope = torch.tensor([1.0, -2, 0.5, 4])
    assert torch.allclose(net[1].weight.grad - other[1].weight.grad, 0.1 * torch.stack([-slope, slope]), atol=1e-6)


def test_what_all_logits_share_costs_nothing(linear) -> None:
    net = linear([[3.0, -5.0]] * 4)
    x, y = torch.full((2, 1, 1, 2), 0.5), torch.tensor([0, 3])
    assert loss_of(Lipschitz(weight=1.0), net, x=x, y=y).item() == pytest.approx(torch.tensor(4.0).log().item())


@pytest.mark.parametrize("name", ["Attention", "Encoder", "Windows"])
def test_attention_is_differentiated_twice(name: str) -> None:
    net = made(lambda: getattr(networks, name)((1, 8, 8), CLASSES))
    loss_of(Lipschitz(weight=1.0), net).backward()
    with sdpa_kernel(SDPBackend.MATH):
        x = X.clone().requires_grad_(True)
        logits = net(x)
        wanted = F.cross_entropy(logits, Y) + by_definition(logits, x)
        weight = net.patch.weight
        (expected,) = torch.autograd.grad(wanted, weight)
    assert torch.allclose(weight.grad, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_directions_span_all_differences(classes: int) -> None:
    directions = _all_directions(torch.zeros(5, classes, dtype=torch.float64))
    assert directions.shape == (classes - 1, 5, classes)
    wanted = torch.eye(classes, dtype=torch.float64) - 1 / classes
    for image in range(5):
        assert torch.allclose(directions[:, image].T @ directions[:, image], wanted, atol=1e-12)


# --- random ----------------------------------------------------------------------------------------------------------


def test_the_mean_over_all_signs_is_exact() -> None:
    net, classes = made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 4))), 4
    x = X[:2].clone().requires_grad_(True)
    logits = net(x)
    exact = _roughness(logits, x, _all_directions(logits))
    assert exact.item() == pytest.approx(by_definition(logits, x).item(), rel=1e-10)
    estimates = []
    for signs in product([-1.0, 1.0], repeat=2 * classes):
        direction = torch.tensor(signs, dtype=torch.float64).reshape(1, 2, classes)
        estimates.append(_roughness(logits, x, direction - direction.mean(2, keepdim=True)).item())
    assert sum(estimates) / len(estimates) == pytest.approx(exact.item(), rel=1e-10)
    assert max(estimates) > 1.2 * exact.item()


@nets
def test_the_estimate_is_unbiased(build: Any) -> None:
    net, x = made(build, training=False), X[:1].expand(4000, -1, -1, -1)
    y = torch.zeros(4000, dtype=torch.int64)
    base = loss_of(Standard(), net, x=x, y=y).item()
    exact = loss_of(Lipschitz(weight=1.0), net, x=x[:1], y=y[:1]).item() - base
    # One draw per image: a batch of the same image is a mean over 4000 draws; its spread from 8 such batches.
    means = [
        loss_of(Lipschitz(weight=1.0, estimate="random"), net, x=x, y=y, seed=seed).item() - base for seed in range(8)
    ]
    spread = torch.tensor(means).std().item()
    assert 0 < spread < 0.05 * exact
    assert sum(means) / 8 == pytest.approx(exact, abs=5 * spread / 8**0.5)


def test_it_costs_one_more_backward_pass(monkeypatch) -> None:
    calls, grad = [], lipschitz.gradient_of
    monkeypatch.setattr(lipschitz, "gradient_of", lambda *given, **named: calls.append(0) or grad(*given, **named))
    loss_of(Lipschitz(estimate="random"), made(plain))
    assert len(calls) == 1
    loss_of(Lipschitz(estimate="exact"), made(plain))
    assert len(calls) == 1 + CLASSES - 1


def test_the_estimate_follows_the_generator() -> None:
    losses = [loss_of(Lipschitz(weight=1.0, estimate="random"), made(plain), seed=seed).item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


# --- added to others -------------------------------------------------------------------------------------------------


@inners
@pytest.mark.parametrize("estimate", ["exact", "random"])
def test_weight_zero_is_the_inner_objective(inner: CrossEntropy, estimate: Any) -> None:
    ours, theirs = made(normed), made(normed)
    found = loss_of(Lipschitz(inner=inner, weight=0.0, estimate=estimate), ours)
    wanted = loss_of(inner, theirs)
    assert torch.equal(found, wanted)
    found.backward()
    wanted.backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_penalty_is_taken_on_the_adversarial_images(recorder) -> None:
    model = recorder(made(plain))
    loss_of(Lipschitz(inner=ADVERSARIAL), model)
    assert len(model.seen) == 3, "one pass over the adversarial images serves both parts"
    assert not torch.equal(model.seen[-1], X)
    assert torch.equal(
        model.seen[-1], ADVERSARIAL.inputs(made(plain), X, Y, progress=0.5, generator=rng.stream(0, "t"))
    )


def test_one_pass_updates_running_statistics_once() -> None:
    net = made(normed)
    loss_of(Lipschitz(inner=ADVERSARIAL, weight=1.0), net)
    assert int(net[1].num_batches_tracked) == 1


@pytest.mark.parametrize("name", catalog.names("train"))
def test_it_can_be_added_to_plain_cross_entropy_only(name: str) -> None:
    spec = spec_of(name)
    if isinstance(catalog.build("train", spec), CrossEntropy):
        assert catalog.name_of(catalog.build("train", {"name": "lipschitz", "inner": spec}).inner) == name
    else:
        with pytest.raises(RequestError, match=f"{name} is not one") as caught:
            catalog.build("train", {"name": "lipschitz", "inner": spec})
        assert caught.value.place == ("inner",)


def test_the_refusal_says_the_place() -> None:
    with pytest.raises(RequestError, match="plain cross-entropy on images they choose, such as standard or pgd"):
        Lipschitz(inner=Trades(eps=0.1))
    settings = {"objective": {"name": "lipschitz", "inner": {"name": "trades", "eps": 0.1}}, "epochs": 1}
    with pytest.raises(RequestError) as caught:
        construct(Training, settings)
    assert caught.value.place == ("objective", "inner")


def test_training_with_it_makes_a_net_smoother(digits: Splits) -> None:
    few = digits.train.at(torch.arange(300))
    x = few.batch(torch.arange(100))
    roughness = []
    for weight in (0.0, 0.3):
        net = made(plain).float()
        train(net, few, Training(objective=Lipschitz(weight=weight), epochs=4, batch_size=50, lr=0.01), seed=0)
        seen = x.clone().requires_grad_(True)
        logits = net(seen)
        roughness.append(_roughness(logits, seen, _all_directions(logits)).item())
    assert roughness[1] < 0.7 * roughness[0]
