"""Perturbed weights: the steps of the authors' code, worked out beside it, and that nothing of them remains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import catalog, rng
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.training.awp import WeightPerturbation
from bascule.training.contract import Objective
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.settings import Training
from bascule.training.standard import Standard
from bascule.training.trades import Trades
from objectives import objective


def settings(**changes: Any) -> Training:
    return Training(**{"objective": Standard(), "epochs": 3, "batch_size": 16, "lr": 0.01, **changes})


def generator() -> torch.Generator:
    return rng.stream(1, "awp")


def authors_step(model: nn.Module, loss: Callable[[nn.Module], Tensor], gamma: float) -> nn.Module:
    """The network on which csdongxian/AWP takes its gradient.

    As `calc_awp` and `diff_in_weights` of its `utils_awp.py` say (read in forks that carry the file, with
    `trades_AWP/train_trades_cifar.py`): a proxy with the model's state descends on minus the loss with SGD; the
    difference of every tensor of more than one dimension whose name has `weight` is scaled to the weight's own length.
    """
    proxy = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(proxy.parameters(), lr=0.01)
    (-loss(proxy)).backward()
    optimizer.step()
    perturbed = copy.deepcopy(model).train()
    for (name, old), new in zip(model.state_dict().items(), proxy.state_dict().values(), strict=True):
        if old.ndim > 1 and "weight" in name:
            difference = new - old
            scale = old.norm() / (difference.norm() + 1e-20)
            dict(perturbed.named_parameters())[name].data.add_(gamma * scale * difference)
    return perturbed


@pytest.mark.parametrize("name", ["pgd", "trades"])
def test_a_step_is_that_of_the_authors(name: str, few: Images, make_net: Callable) -> None:
    made: Objective = {"pgd": Pgd(eps=0.1, steps=2), "trades": Trades(eps=0.1, steps=2)}[name]
    model = make_net(dropout=0.0)
    x, y = few.batch(torch.arange(16)), few.labels[:16]
    seen = made.inputs(model, x, y, progress=0.0, generator=generator())

    def theirs(net: nn.Module) -> Tensor:
        if name == "pgd":
            return F.cross_entropy(net(seen), y)
        clean = net(x)
        kl = F.kl_div(F.log_softmax(net(seen), 1), F.softmax(clean, 1), reduction="batchmean")
        return F.cross_entropy(clean, y) + 6.0 * kl

    wanted = authors_step(model, theirs, 0.05)
    theirs(wanted).backward()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    awp = WeightPerturbation(gamma=0.05)
    with awp.around(made, model, model, x, y, progress=0.0, generator=generator()) as chosen:
        for key, value in model.named_parameters():
            assert torch.allclose(value, wanted.get_parameter(key), atol=2e-5), key
            assert torch.equal(value, before[key]) == (value.ndim == 1), key
        for key, value in model.named_buffers():
            assert torch.equal(value, before[key]), f"the ascent moved {key}"
        loss = chosen.loss(model, x, y, progress=0.0, generator=generator())
        loss.backward()
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key]), f"{key} was not put back"
        assert torch.allclose(value.grad, wanted.get_parameter(key).grad, rtol=1e-3, atol=1e-4), key
    for key, value in model.named_buffers():
        assert torch.allclose(value, wanted.get_buffer(key), atol=1e-4), key


def test_the_loss_is_higher_where_the_step_is_taken_and_longer_by_gamma(few: Images, make_net: Callable) -> None:
    model = make_net(dropout=0.0)
    x, y = few.batch(torch.arange(64)), few.labels[:64]
    losses = []
    for gamma in (1e-6, 0.01, 0.05):
        awp = WeightPerturbation(gamma=gamma)
        with awp.around(Standard(), model, model, x, y, progress=0.0, generator=generator()) as chosen:
            losses.append(chosen.loss(model, x, y, progress=0.0, generator=generator()).item())
            moved = {key: value.detach().clone() for key, value in model.named_parameters()}
        for key, value in model.named_parameters():
            if value.ndim > 1:
                assert ((moved[key] - value).norm() / value.norm()).item() == pytest.approx(gamma, rel=0.05)
    assert losses == sorted(losses)
    assert losses[2] > losses[0] + 0.01


def test_images_are_searched_for_once_and_before(few: Images, make_net: Callable) -> None:
    searches: list[Tensor] = []
    model = make_net()
    own = model[0].weight.detach().clone()

    @component
    class Watched(Pgd):
        """Notes the weights on which it searches."""

        def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: Any) -> Tensor:
            searches.append(model[0].weight.detach().clone())
            return super().inputs(model, x, y, progress=progress, generator=generator)

    watched = settings(objective=Watched(eps=0.1, steps=1), epochs=1, awp=WeightPerturbation(gamma=0.1))
    train(model, few.at(torch.arange(16)), watched, seed=0)
    assert len(searches) == 1
    assert torch.equal(searches[0], own)


def test_it_starts_after_its_warmup(few: Images, make_net: Callable) -> None:
    """The first epoch of three is the same to the byte, the second is not."""
    ends = []
    for awp in (None, WeightPerturbation(gamma=0.1, warmup=1 / 3)):
        seen: list[dict[str, Tensor]] = []
        model = make_net()

        def look(epoch: int, model: nn.Module = model, seen: list[Any] = seen) -> dict[str, float]:
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
            return {}

        train(model, few, settings(awp=awp), seed=0, look=look)
        ends.append(seen)
    same = [all(torch.equal(one[name], other[name]) for name in one) for one, other in zip(*ends, strict=True)]
    assert same == [True, False, False]


@pytest.mark.parametrize("name", catalog.names("train"))
def test_any_objective_may_have_it(name: str, few: Images, make_net: Callable) -> None:
    plain, perturbed = make_net(), make_net()
    train(plain, few, settings(objective=objective(name), epochs=4), seed=0)
    train(perturbed, few, settings(objective=objective(name), epochs=4, awp=WeightPerturbation(gamma=0.1)), seed=0)
    assert not torch.equal(plain[0].weight, perturbed[0].weight)


def test_frozen_weights_are_left_alone_and_unused_ones_harmless(few: Images, make_net: Callable) -> None:
    net = make_net()
    net.unused = nn.Parameter(torch.ones(3, 3))
    net[0].weight.requires_grad_(False)
    before, awp = net[0].weight.clone(), WeightPerturbation(gamma=0.5)
    x, y = few.batch(torch.arange(16)), few.labels[:16]
    with awp.around(Standard(), net, net, x, y, progress=0.0, generator=generator()):
        assert torch.equal(net[0].weight, before)
        assert torch.equal(net.unused, torch.ones(3, 3))
    train(net, few, settings(awp=awp, epochs=1), seed=0)
    assert torch.equal(net[0].weight, before)


def test_weights_are_put_back_after_an_error(few: Images, make_net: Callable) -> None:
    net = make_net()
    before = net[0].weight.detach().clone()
    x, y = few.batch(torch.arange(16)), few.labels[:16]
    with (
        pytest.raises(KeyError),
        WeightPerturbation().around(Standard(), net, net, x, y, progress=0.0, generator=generator()),
    ):
        raise KeyError
    assert torch.equal(net[0].weight, before)
