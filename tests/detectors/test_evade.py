"""An attacker who knows the detector, where the answer is known by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.attacks.toward import Toward
from bascule.core.ball import ball
from bascule.core.images import Images
from bascule.core.inference import labels_of
from bascule.core.rng import stream
from bascule.detectors.contract import Prepared
from bascule.detectors.evade import evade
from bascule.detectors.run import Guard, prepare_detector
from bascule.detectors.strip import Strip

EPS = 0.1


class First(nn.Module):
    """Class 1 is whether the first of four pixels is brighter than a half."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1)[:, 0] - 0.5
        return torch.stack([-bright, bright], dim=1)


def guard_of(suspicion: Any, smooth: Any = None, model: nn.Module | None = None) -> Guard:
    """A guard that was prepared elsewhere."""
    detector = Strip()
    made = Prepared(suspicion=suspicion, smooth=smooth)
    return Guard(
        model=model or First().eval(), detector=detector, calm=torch.zeros(1), judge=made.suspicion,
        smooth=made.smooth or made.suspicion,
    )  # fmt: skip


def sum_of_two(x: Tensor) -> Tensor:
    """How far the first two pixels together are from 0.9: moving the first alone is seen, moving both against each
    other is not."""
    flat = x.flatten(1)
    return (flat[:, 0] + flat[:, 1] - 0.9).abs()


X = torch.tensor([[0.45, 0.45, 0.5, 0.5], [0.44, 0.46, 0.0, 1.0], [0.3, 0.6, 0.5, 0.5]]).reshape(3, 1, 2, 2)
"""Two images that can be fooled within 0.1, and one that cannot."""
Y = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_passes_where_plain_pgd_is_caught(norm: Any) -> None:
    guard = guard_of(sum_of_two)
    pgd = Pgd(eps=EPS, norm=norm, steps=20, stop_when_fooled=False, random_start=False)
    plain = run_attack(guard.model, pgd, X, Y, generator=stream(0, "pgd")).x
    assert labels_of(guard.model(plain)).tolist() == [1, 1, 0]
    assert (guard.suspicion(plain)[:2] > 0.05).all()
    found = evade(guard, X, Y, ball=ball(norm, EPS), threshold=0.01)
    assert labels_of(guard.model(found)).tolist() == [1, 1, 0]
    assert (guard.suspicion(found)[:2] <= 0.01).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_never_leaves_the_ball(norm: Any) -> None:
    x = torch.rand(5, 1, 2, 2, generator=stream(0, "x"))
    y = (x.flatten(1)[:, 0] > 0.5).long()
    found = evade(guard_of(sum_of_two), x, y, ball=ball(norm, 0.3), threshold=0.01)
    assert (ball(norm, 0.3).distance(found, x) <= 0.3 + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_model_that_cannot_be_fooled_stays() -> None:
    found = evade(guard_of(sum_of_two), X[2:], Y[2:], ball=ball("linf", EPS), threshold=0.01)
    assert torch.equal(found, X[2:])


def test_where_suspicion_cannot_be_avoided_the_least_suspicious_wrong_image_comes_back() -> None:
    """The suspicion is the brightness of the pixel that must be bright: just over a half is the best there is."""
    found = evade(guard_of(lambda x: x.flatten(1)[:, 0]), X[:1], Y[:1], ball=ball("linf", EPS), threshold=0.2)
    assert 0.5 < float(found.flatten()[0]) < 0.51


def test_a_suspicion_that_counts_is_lowered_by_what_stands_for_it() -> None:
    """The count of bright pixels has no gradient; their sum has."""
    guard = guard_of(lambda x: (x.flatten(1)[:, 1:] > 0.42).float().sum(1), lambda x: x.flatten(1)[:, 1:].sum(1))
    x = torch.full((1, 1, 2, 2), 0.45)
    assert guard.suspicion(x) == 3
    found = evade(guard, x, Y[:1], ball=ball("linf", EPS), threshold=0.0)
    assert guard.suspicion(found) == 0
    assert labels_of(guard.model(found)) == 1


def test_towards_a_target_from_an_image_that_is_there_already() -> None:
    """The owner of a backdoor: the target is reached, and what remains is to look harmless."""
    guard = guard_of(sum_of_two)
    x = torch.tensor([0.6, 0.45, 0.5, 0.5]).reshape(1, 1, 2, 2)
    found = evade(guard, x, Y[:1], ball=ball("linf", EPS), threshold=0.01, model=Toward(guard.model, 1))
    assert labels_of(guard.model(found)) == 1
    assert guard.suspicion(found) <= 0.01


@pytest.mark.parametrize("rounded", [False, True])
def test_a_model_without_gradients_is_no_error(rounded: bool) -> None:
    class Outside(First):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.round() if rounded else torch.from_numpy(x.numpy()))

    found = evade(guard_of(lambda x: x.mean((1, 2, 3)), model=Outside()), X, Y, ball=ball("linf", EPS), threshold=-1)
    assert found.shape == X.shape


def test_no_images_are_no_error() -> None:
    assert evade(guard_of(sum_of_two), X[:0], Y[:0], ball=ball("linf", EPS), threshold=0.0).shape == (0, 1, 2, 2)


def test_each_image_is_for_itself_and_the_model_is_found_as_it_was() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3)).train()
    images = Images(
        pixels=torch.randint(256, (60, 1, 2, 2), dtype=torch.uint8, generator=stream(0, "pixels")),
        labels=torch.zeros(60, dtype=torch.int64), ids=torch.arange(60), classes=("a", "b", "c"),
    )  # fmt: skip
    guard = prepare_detector(net, Strip(overlays=3), images, generator=stream(0, "detect"))
    x = torch.rand(6, 1, 2, 2, generator=stream(1, "x"))
    y = torch.arange(6) % 3
    whole = evade(guard, x, y, ball=ball("linf", 0.3), threshold=guard.threshold(0.05))
    assert torch.allclose(torch.cat([evade(guard, a, b, ball=ball("linf", 0.3), threshold=guard.threshold(0.05))
        for a, b in zip(x.split(1), y.split(1), strict=True)]), whole, atol=1e-5)  # fmt: skip
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_only_images_that_can_be_fooled_cost_a_suspicion() -> None:
    asked = []

    def counted(x: Tensor) -> Tensor:
        asked.append(len(x))
        return sum_of_two(x)

    assert torch.equal(evade(guard_of(counted), X[2:], Y[2:], ball=ball("linf", EPS), threshold=0.05)[0], X[2])
    assert asked == []
    evade(guard_of(counted), X, Y, ball=ball("linf", EPS), threshold=0.05)
    assert 0 < max(asked) <= 2


def test_a_suspicion_that_is_itself_lowered_is_asked_for_once_a_step() -> None:
    """As often as something that stands for it, which comes on top."""

    def asked_for(stand_in: bool) -> tuple[int, int]:
        judged, lowered = [], []

        def suspicion(x: Tensor) -> Tensor:
            judged.append(len(x))
            return sum_of_two(x)

        def smooth(x: Tensor) -> Tensor:
            lowered.append(len(x))
            return sum_of_two(x)

        evade(guard_of(suspicion, smooth if stand_in else None), X, Y, ball=ball("linf", EPS), threshold=-1)
        return len(judged), len(lowered)

    (alone, none), (judged, lowered) = asked_for(False), asked_for(True)
    assert (alone, none) == (lowered, 0)
    assert 0 < judged <= lowered


def test_what_is_not_finite_is_told_also_while_it_is_lowered() -> None:
    guard = guard_of(lambda x: x.flatten(1)[:, 0].where(x.flatten(1)[:, 0] < 0.5, torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        evade(guard, X, Y, ball=ball("linf", EPS), threshold=0.0)
