"""Training on one step towards a random label."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bascule.attacks.fgsm_targeted import FgsmTargeted as Attack
from bascule.core import rng
from bascule.core.restore import untouched
from bascule.training.fgsm_targeted import FgsmTargeted
from bascule.training.standard import Standard

X = torch.rand(12, 1, 8, 8, generator=rng.stream(0, "images"))
Y = torch.arange(12) % 10

norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def test_with_two_classes_by_hand(linear) -> None:
    # Logits 0 and s . x: the only wrong label of 0 is 1, so the step goes along the signs of s.
    slope, x = [1.0, -2, 0.5, 4], torch.full((3, 1, 2, 2), 0.5)
    y = torch.zeros(3, dtype=torch.int64)
    loss = FgsmTargeted(eps=0.1).loss(linear([[0.0] * 4, slope]), x, y, progress=0.0, generator=rng.stream(0, "t"))
    # s . x = 1.75, and 0.1 * |s| adds 0.75.
    assert loss.item() == pytest.approx(F.softplus(torch.tensor(2.5)).item())


@norms
def test_it_trains_on_what_the_attack_of_the_same_name_finds(norm: Any, make_net) -> None:
    net = make_net()
    found = FgsmTargeted(norm=norm, eps=0.2).inputs(net, X, Y, progress=0.5, generator=rng.stream(3, "t"))
    with untouched(net):
        wanted = Attack(norm=norm, eps=0.2).perturb(net, X, Y, generator=rng.stream(3, "t"))
    assert torch.equal(found, wanted)
    assert Attack(norm=norm, eps=0.2).ball.distance(found, X).max() <= 0.2 + 1e-6


@norms
@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_eps_zero_is_ordinary_training(norm: Any, batch_norm: Any, make_net) -> None:
    objective = FgsmTargeted(norm=norm, eps=0.0, batch_norm=batch_norm)
    found, wanted = (
        each.loss(make_net(dropout=0.0), X, Y, progress=0.5, generator=rng.stream(0, "t"))
        for each in (objective, Standard())
    )
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(("batch_norm", "mode"), [("running", False), ("batch", True)])
def test_the_attack_uses_the_asked_statistics(batch_norm: Any, mode: bool, make_net, recorder) -> None:
    model = recorder(make_net())
    FgsmTargeted(eps=0.1, batch_norm=batch_norm).loss(model, X, Y, progress=0.5, generator=rng.stream(0, "t"))
    assert model.modes == [mode, True]
    assert int(model.net[1].num_batches_tracked) == 1
