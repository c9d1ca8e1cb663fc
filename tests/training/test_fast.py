"""Fast adversarial training: one step from a random start."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bascule.core import rng
from bascule.core.ball import ball
from bascule.training.fast import Fast
from bascule.training.pgd import Pgd
from bascule.training.standard import Standard

X = torch.rand(12, 1, 8, 8, generator=rng.stream(0, "images"))
Y = torch.arange(12) % 10

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
statistics = pytest.mark.parametrize("batch_norm", ["running", "batch"])


def test_on_a_linear_net_by_hand(linear, recorder) -> None:
    # Start d in [-0.1, 0.1], then 0.125 along the slope's sign, then back into the ball.
    slope, x = torch.tensor([1.0, -2, 0.5, 4]), torch.full((50, 1, 2, 2), 0.5)
    model = recorder(linear([[0.0] * 4, slope.tolist()]))
    y = torch.zeros(50, dtype=torch.int64)
    Fast(eps=0.1).loss(model, x, y, progress=0.0, generator=rng.stream(0, "t"))
    start, end = ((seen - x).flatten(1) for seen in model.seen)
    assert 0.09 < start.abs().max() <= 0.1 + 1e-6
    assert torch.allclose(end, (start + 0.125 * slope.sign()).clamp(-0.1, 0.1), atol=1e-6)


@norms
@statistics
def test_it_is_pgd_with_one_long_step(norm: Any, batch_norm: Any, make_net) -> None:
    fast = Fast(norm=norm, eps=0.2, batch_norm=batch_norm)
    pgd = Pgd(norm=norm, eps=0.2, steps=1, step_size=0.25, batch_norm=batch_norm)
    found, wanted = (
        each.loss(make_net(dropout=0.0), X, Y, progress=0.5, generator=rng.stream(1, "t")) for each in (fast, pgd)
    )
    assert torch.equal(found, wanted)


@norms
@statistics
def test_eps_zero_is_ordinary_training(norm: Any, batch_norm: Any, make_net) -> None:
    found, wanted = (
        each.loss(make_net(dropout=0.0), X, Y, progress=0.5, generator=rng.stream(0, "t"))
        for each in (Fast(norm=norm, eps=0.0, batch_norm=batch_norm), Standard())
    )
    assert torch.equal(found, wanted)


@norms
def test_images_stay_in_the_ball_and_the_step_size_is_used(norm: Any, make_net) -> None:
    settings = {"norm": norm, "eps": 0.3}
    near, far = (
        Fast(**settings, step_size=size).inputs(make_net(), X, Y, progress=0.5, generator=rng.stream(0, "t"))
        for size in (None, 1e-3)
    )
    assert ball(norm, 0.3).distance(near, X).max() <= 0.3 + 1e-6
    start = ball(norm, 0.3).random_point(X, generator=rng.stream(0, "t"))
    assert 0 < ball(norm, 1.0).distance(far, start).max() <= 1e-3 + 1e-6
