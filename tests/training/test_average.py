"""Averaged weights: the formula by hand, who sees them, and that the training itself does not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core.images import Images
from bascule.training.average import Average
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.training.standard import Standard


def settings(**changes: Any) -> Training:
    return Training(**{"objective": Standard(), "epochs": 3, "batch_size": 16, "lr": 0.01, **changes})


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_average_is_the_one_worked_out_by_hand() -> None:
    """The formula of adversarial_robustness/jax/utils.py, `ema_update`, in google-deepmind/deepmind-research: after
    step t the average keeps min(decay, (1 + t) / (10 + t)) of itself."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    average = Average(net, 0.15)
    net.weight.data.fill_(2.0)
    average.follow(net, 0)  # keeps 1/10
    with average.lent(net):
        assert net.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    assert net.weight.item() == 2.0
    net.weight.data.fill_(4.0)
    average.follow(net, 1)  # 2/11 would be more than the decay
    average.give(net)
    assert net.weight.item() == pytest.approx(0.15 * 1.9 + 0.85 * 4)


@pytest.mark.parametrize("decay", [0.5, 0.995])
def test_a_training_ends_with_the_average_of_its_steps(decay: float, few: Images, make_net: Callable) -> None:
    """Against the weights after every step, taken from a training without averages."""
    after: list[dict[str, Tensor]] = []
    plain, averaged = make_net(), make_net()
    wanted = {name: p.detach().clone() for name, p in plain.named_parameters()}
    train(plain, few, settings(), seed=3, checkpoints=Noting(plain, after), checkpoint_seconds=0)
    after.append(weights(plain))
    for step, now in enumerate(after):
        keep = min(decay, (1 + step) / (10 + step))
        wanted = {name: keep * before + (1 - keep) * now[name] for name, before in wanted.items()}
    train(averaged, few, settings(ema=decay), seed=3)
    for name, value in averaged.named_parameters():
        assert torch.allclose(value, wanted[name], atol=1e-6), name
        assert not torch.equal(value, after[-1][name])
    for name, value in averaged.named_buffers():
        assert torch.equal(value, after[-1][name]), "statistics are those of the model itself"
    assert not averaged.training


class Noting:
    """Notes the weights after every step but the last."""

    def __init__(self, model: nn.Module, found: list[dict[str, Tensor]]) -> None:
        self.model, self.found = model, found

    def load(self) -> None:
        return None

    def save(self, state: dict[str, Any]) -> None:
        self.found.append(weights(self.model))


def test_looks_see_the_average_and_the_training_goes_on_without(few: Images, make_net: Callable) -> None:
    seen: list[dict[str, Tensor]] = []
    model, alone, last = make_net(), make_net(), make_net()

    def look(epoch: int) -> dict[str, float]:
        seen.append(weights(model))
        return {}

    curve = train(model, few, settings(ema=0.9), seed=3, look=look)
    train(alone, few, settings(ema=0.9, epochs=1), seed=3)
    assert all(torch.equal(value, seen[0][name]) for name, value in alone.state_dict().items())
    assert all(torch.equal(value, seen[-1][name]) for name, value in model.state_dict().items())
    losses = [entry["loss"] for entry in train(last, few, settings(), seed=3)]
    assert [entry["loss"] for entry in curve] == losses


def test_a_decay_of_nothing_is_no_average(few: Images, make_net: Callable) -> None:
    plain, averaged = make_net(), make_net()
    train(plain, few, settings(), seed=3)
    train(averaged, few, settings(ema=0.0), seed=3)
    assert all(torch.equal(value, averaged.state_dict()[name]) for name, value in plain.state_dict().items())


def test_what_is_frozen_or_no_float_stays_as_it_is(few: Images, make_net: Callable) -> None:
    net = make_net()
    net.counts = nn.Parameter(torch.tensor([3, 7, 1000]), requires_grad=False)
    net[0].weight.requires_grad_(False)
    before = weights(net)
    train(net, few, settings(ema=0.995), seed=3)
    for name in ("counts", "0.weight"):
        assert torch.equal(net.state_dict()[name], before[name])
