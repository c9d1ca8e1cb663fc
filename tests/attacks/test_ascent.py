from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.ascent import LOSSES, ascend
from bascule.attacks.losses import Loss, cross_entropy
from bascule.core.ball import Ball, L2Ball, LinfBall
from bascule.core.rng import borrowed_global_stream

SLOPE = [2.0, -1.0, 0.5, 0.0]


class Slope(nn.Module):
    """Logits (0, s . x + offset): raising the loss of label 0 means walking along s, of label 1 against it."""

    def __init__(self, *slope: float, offset: float = 0.0) -> None:
        super().__init__()
        self.slope, self.offset = torch.tensor(slope, dtype=torch.float64), offset
        self.sizes: list[int] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        self.modes.append(self.training)
        score = x.flatten(1) @ self.slope + self.offset
        return torch.stack([torch.zeros_like(score), score], 1)


def images(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def climb(model: nn.Module, x: Tensor, y: int | list[int], region: Ball, **changes: Any) -> Tensor:
    settings: dict[str, Any] = {
        "start": x,
        "steps": 1,
        "step_size": 0.1,
        "loss": cross_entropy,
        "stop_when_fooled": False,
        **changes,
    }
    labels = torch.tensor([y] if isinstance(y, int) else y, dtype=torch.int64)
    return ascend(model, x, labels, ball=region, **settings)


def entries(x: Tensor) -> list[float]:
    return x.flatten().tolist()


losses = pytest.mark.parametrize("loss", list(LOSSES.values()), ids=list(LOSSES))


# --- steps -----------------------------------------------------------------------------------------------------------


@losses
def test_one_linf_step_by_hand(loss: Loss) -> None:
    x = images(0.5, 0.5, 0.5, 0.5)
    assert entries(climb(Slope(*SLOPE), x, 0, LinfBall(eps=0.3), loss=loss)) == pytest.approx([0.6, 0.4, 0.6, 0.5])
    assert entries(climb(Slope(*SLOPE), x, 1, LinfBall(eps=0.3), loss=loss)) == pytest.approx([0.4, 0.6, 0.4, 0.5])


@losses
def test_enough_linf_steps_reach_the_corner(loss: Loss) -> None:
    # The best point of a linear model is the ball's corner, cut off at 0 and 1.
    found = climb(Slope(*SLOPE), images(0.5, 0.5, 0.9, 0.5), 0, LinfBall(eps=0.25), loss=loss, steps=4)
    assert entries(found) == pytest.approx([0.75, 0.25, 1.0, 0.5])


@losses
def test_enough_l2_steps_reach_the_pole(loss: Loss) -> None:
    # The best point is the origin plus eps times the unit slope, (0.6, 0, 0.8).
    found = climb(Slope(3.0, 0.0, 4.0), images(0.5, 0.5, 0.5), 0, L2Ball(eps=0.25), loss=loss, steps=4)
    assert entries(found) == pytest.approx([0.65, 0.5, 0.7])


def test_steps_go_from_the_start_and_the_ball_stays_around_the_image() -> None:
    found = climb(Slope(1.0, 1.0), images(0.5, 0.5), 0, LinfBall(eps=0.2), start=images(0.3, 0.65))
    assert entries(found) == pytest.approx([0.4, 0.7])


@losses
def test_an_image_walks_the_same_way_alone_and_in_a_batch(loss: Loss) -> None:
    with borrowed_global_stream(0, "net"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.rand(4, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    region = L2Ball(eps=0.3)
    together = climb(model, x, [0, 1, 2, 0], region, loss=loss, steps=3)
    alone = [climb(model, x[i : i + 1], [0, 1, 2, 0][i], region, loss=loss, steps=3) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stop", [False, True])
def test_arguments_are_left_as_they_are(stop: bool) -> None:
    x, start = images(0.5, 0.5), images(0.4, 0.6)
    model = Slope(1.0, 1.0, offset=-1.05)
    found = climb(model, x, 0, LinfBall(eps=0.2), start=start, steps=3, stop_when_fooled=stop)
    assert entries(x) == [0.5, 0.5]
    assert entries(start) == [0.4, 0.6]
    assert not x.requires_grad
    assert not start.requires_grad
    assert not found.requires_grad


@pytest.mark.parametrize("mode", [False, True])
def test_the_mode_of_the_model_is_used(mode: bool) -> None:
    model = Slope(1.0).train(mode)
    climb(model, images(0.5), 0, LinfBall(eps=0.2), steps=2)
    assert model.modes == [mode, mode]


# --- stop_when_fooled ------------------------------------------------------------------------------------------------


def test_an_image_gets_its_first_misclassified_iterate() -> None:
    # Label 0 is lost above 0.75: from 0.5 in steps of 0.1 that is at 0.8. Without stopping the walk ends at 0.9.
    model = Slope(1.0, offset=-0.75)
    region = LinfBall(eps=0.4)
    assert entries(climb(model, images(0.5), 0, region, steps=6, stop_when_fooled=True)) == pytest.approx([0.8])
    assert entries(climb(model, images(0.5), 0, region, steps=6, stop_when_fooled=False)) == pytest.approx([0.9])


def test_a_start_that_is_misclassified_is_kept() -> None:
    model = Slope(1.0, offset=-0.75)
    found = climb(model, images(0.7), 0, LinfBall(eps=0.4), start=images(0.8), steps=6, stop_when_fooled=True)
    assert entries(found) == [0.8]


def test_fooled_images_leave_the_batch() -> None:
    # First misclassified iterate after 3, 1, 0 steps, and never.
    model = Slope(1.0, offset=-0.75)
    x = torch.tensor([0.5, 0.74, 0.9, 0.2], dtype=torch.float64).reshape(4, 1, 1, 1)
    found = climb(model, x, [0, 0, 0, 0], LinfBall(eps=0.4), steps=10, stop_when_fooled=True)
    assert entries(found) == pytest.approx([0.8, 0.84, 0.9, 0.6])
    assert model.sizes == [4, 3, 2, 2, 1, 1, 1, 1, 1, 1]


def test_the_search_ends_when_all_are_fooled() -> None:
    model = Slope(1.0, offset=-0.75)
    x = torch.tensor([0.7, 0.74], dtype=torch.float64).reshape(2, 1, 1, 1)
    found = climb(model, x, [0, 0], LinfBall(eps=0.4), steps=100, stop_when_fooled=True)
    assert entries(found) == pytest.approx([0.8, 0.84])
    assert model.sizes == [2, 2]


def test_without_stopping_every_step_sees_every_image() -> None:
    model = Slope(1.0, offset=-0.75)
    x = torch.tensor([0.7, 0.9], dtype=torch.float64).reshape(2, 1, 1, 1)
    climb(model, x, [0, 0], LinfBall(eps=0.4), steps=5)
    assert model.sizes == [2] * 5


def test_no_images() -> None:
    x = torch.zeros(0, 1, 1, 1, dtype=torch.float64)
    assert climb(Slope(1.0), x, [], LinfBall(eps=0.4), steps=2, stop_when_fooled=True).shape == x.shape
