from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks import _boundary
from bascule.attacks.deepfool import Deepfool
from bascule.attacks.fab import Fab
from bascule.attacks.run import run_attack
from bascule.core.ball import ball
from bascule.core.rng import stream

EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0}
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}
norms = pytest.mark.parametrize("norm", list(EPS))


def nearest(attack: Fab, model: nn.Module, x: Tensor, y: Tensor, *, enough: float = 0.0, seed: int = 0) -> Tensor:
    return attack.smallest(model, x, y, enough=enough, generator=stream(seed, "attack"))


def distances(attack: Fab, model: nn.Module, x: Tensor, y: Tensor, *, enough: float = 0.0) -> Tensor:
    """Of the crossings found; infinite where there is none."""
    found = nearest(attack, model, x, y, enough=enough)
    with torch.no_grad():
        return attack.ball.distance(found, x).where(model(found).argmax(1) != y, torch.inf)


class Linear(nn.Module):
    """Logits W x + b; the images it is asked about are counted."""

    def __init__(self, weight: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.weight, self.bias = (torch.tensor(part, dtype=torch.float64) for part in (weight, bias))
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return x.flatten(1) @ self.weight.T + self.bias


def grey(count: int = 1) -> Tensor:
    return torch.full((count, 1, 1, 2), 0.5).double()


# Gap -0.7 at the grey image, dual norms 7, 5 and 4.
TWO = ([[0.0, 0.0], [3.0, -4.0]], [0.0, -0.2])
EXACT = {"linf": 0.1, "l2": 0.14, "l1": 0.175}


# --- one boundary ----------------------------------------------------------------------------------------------------


@norms
@pytest.mark.parametrize(
    ("settings", "steps", "wanted"),
    [
        # In units of the distance. The first step: image and iterate are the same.
        ({}, 1, 1.05),
        ({"eta": 1.5}, 1, 1.5),
        # Back to 0.9 * 1.5 = 1.35: beyond the boundary, -0.35 from the iterate and 1 from the image; it ends at
        # 0.9 * (1.35 - 1.5 * 0.35) + 0.1 * 1.5 = 0.8925, no crossing.
        ({"eta": 1.5}, 2, 1.5),
        # 0.8 * 1.05 = 0.84: 0.16 from the boundary, weight 0.16 / 1.16 capped at 0.1;
        # 0.9 * (0.84 + 1.05 * 0.16) + 0.1 * 1.05 = 1.0122.
        ({"beta": 0.8}, 2, 1.0122),
        # 0.99 * (0.84 + 1.05 * 0.16) + 0.01 * 1.05 = 1.00842.
        ({"beta": 0.8, "alpha_max": 0.01}, 2, 1.00842),
        # 0.9 * 1.05 = 0.945, weight 0.055 / 1.055; (0.945 + 1.05 * 0.055) * (1 - weight) + 1.05 * weight.
        ({}, 2, 1.00275 * (1 - 0.055 / 1.055) + 1.05 * 0.055 / 1.055),
    ],
)
def test_steps_by_hand(norm: str, settings: dict[str, Any], steps: int, wanted: float) -> None:
    attack = Fab(norm=norm, eps=1.0, steps=steps, **settings)
    found = distances(attack, Linear(*TWO), grey(), torch.tensor([0]))
    assert found.item() == pytest.approx(wanted * EXACT[norm])


@norms
@pytest.mark.parametrize("targeted", [True, False])
def test_exact_distances_of_linear_boundaries(norm: str, targeted: bool) -> None:
    weight = torch.randn(5, 12, generator=stream(0, "weight")).double()
    x = torch.empty(30, 1, 3, 4).uniform_(0.4, 0.6, generator=stream(0, "images")).double()
    model = Linear(weight.tolist(), (-weight.sum(1) / 2).tolist())
    logits = model(x)
    y = logits.argmax(1)
    gap = logits.gather(1, y.unsqueeze(1)) - logits
    exact = gap / (weight[y].unsqueeze(1) - weight).norm(p=DUAL[norm], dim=2)
    exact = exact.scatter(1, y.unsqueeze(1), torch.inf).amin(1)
    found = distances(Fab(norm=norm, eps=1.0, targeted=targeted), model, x, y)
    assert (found >= exact * (1 - 1e-9)).all()
    assert (found <= exact * 1.006).all()


@norms
def test_the_border_of_the_box_is_taken_into_account(norm: str) -> None:
    # The first entry can rise by 0.05 only; the rest of the gap of 1.3 has to come from the second.
    model = Linear([[0.0, 0.0], [10.0, 2.0]], [0.0, -10.8 - 0.0])
    x = torch.tensor([0.95, 0.0]).double().reshape(1, 1, 1, 2)
    # -1.3 + 10 * 0.05 + 2 * 0.4 = 0.
    exact = {"linf": 0.4, "l2": math.hypot(0.05, 0.4), "l1": 0.45}[norm]
    found = distances(Fab(norm=norm, eps=1.0), model, x, torch.tensor([0])).item()
    assert exact <= found <= exact * 1.01


@norms
def test_a_crossing_outside_of_the_ball_is_no_success(norm: str) -> None:
    y = torch.zeros(3, dtype=torch.int64)
    for factor, prediction in ((0.99, 0), (1.01, 1)):
        attack = Fab(norm=norm, eps=factor * EXACT[norm])
        found = run_attack(Linear(*TWO), attack, grey(3), y, generator=stream(0, "attack"))
        assert found.prediction.tolist() == [prediction] * 3
        assert attack.ball.distance(found.x, grey(3)).max() <= attack.eps + 1e-12


# --- several boundaries ----------------------------------------------------------------------------------------------


@norms
def test_which_boundaries_are_looked_at(norm: str) -> None:
    # Class 2 is the likelier, class 1 the nearer: gaps -0.5 and -1 with dual norms 2.1, 1.5 or 1.1 and 18,
    # 12.7 or 9.
    model = Linear([[0.0, 0.0], [9.0, -9.0], [1.0, 1.1]], [0.0, -1.0, -1.55])
    y = torch.tensor([0])
    for targeted in (True, False):
        far, near = (
            nearest(Fab(norm=norm, eps=1.0, targets=count, targeted=targeted), model, grey(), y) for count in (1, 2)
        )
        assert model(far).argmax(1).tolist() == [2]
        assert model(near).argmax(1).tolist() == [1]


def test_the_untargeted_version_is_one_run() -> None:
    model, y = Linear([[0.0, 0.0], [9.0, -9.0], [1.0, 1.0]], [0.0, -1.0, -1.5]), torch.zeros(100, dtype=torch.int64)
    for targeted, runs in ((True, 2), (False, 1)):
        model.sizes.clear()
        nearest(Fab(eps=1.0, steps=5, targeted=targeted), model, grey(100), y)
        # The image itself, then two passes a step.
        assert model.sizes == [100] * (1 + 2 * 5 * runs)


# --- a network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nearer_than_deepfool(norm: str, trained: Any) -> None:
    x, y = trained.x[:60], trained.y[:60]
    deepfool = ball(norm, 1.0).distance(Deepfool(norm=norm, eps=1.0).smallest(trained.model, x, y), x)
    few, fab = (distances(Fab(norm=norm, eps=1.0, steps=n), trained.model, x, y) for n in (3, 20))
    assert (fab <= few).all()
    assert (fab <= deepfool * 1.02).all()
    assert (fab / deepfool).mean() < 0.995
    assert (fab < 0.98 * deepfool).double().mean() > 0.2


@norms
def test_an_image_leaves_with_a_crossing_within_eps(norm: str, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boundary, "_TOGETHER", 0)
    x, y = trained.x[:60], trained.y[:60]
    attack = Fab(norm=norm, eps=EPS[norm], steps=10, targets=4)
    least = distances(attack, trained.model, x, y)
    sizes: list[int] = []
    hook = trained.model.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    try:
        crossings = nearest(attack, trained.model, x, y, enough=attack.eps)
    finally:
        hook.remove()
    early = attack.ball.distance(crossings, x)
    assert torch.equal(early <= attack.eps, least <= attack.eps)
    assert (early >= least * (1 - 1e-4)).all()
    assert (early > 1.01 * least).any()
    assert 0 < int((least > attack.eps).sum()) < 55
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[:3] == [60, 60, 60]
    assert len(sizes) == 1 + 2 * 10 * 4
    assert sizes[-1] < int((least > attack.eps).sum()) + 5
    found = run_attack(trained.model, attack, x, y, generator=stream(0, "attack"))
    assert torch.equal(found.prediction != y, early <= attack.eps)


@norms
@pytest.mark.parametrize("enough", [0.0, 0.6, 0.9])
def test_targets_that_share_a_batch_find_what_they_find_one_by_one(
    norm: str, enough: float, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = copy.deepcopy(trained.model).double(), trained.x[:25].double(), trained.y[:25]
    attack, found = Fab(norm=norm, eps=EPS[norm], steps=15, targets=5), []
    for size in (0, 60, 1000):  # one by one; two and more, once fewer stand; all
        monkeypatch.setattr(_boundary, "_TOGETHER", size)
        found.append(nearest(attack, model, x, y, enough=enough * attack.eps))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-6)
    fell = distances(attack, model, x, y, enough=enough * attack.eps) <= enough * attack.eps
    assert bool(fell.any()) == (enough > 0)
    assert not bool(fell.all())


@norms
def test_one_step_is_enough_for_a_linear_boundary_within_eps(norm: str) -> None:
    model, y = Linear(*TWO), torch.zeros(3, dtype=torch.int64)
    nearest(Fab(norm=norm, eps=1.0), model, grey(3), y, enough=1.06 * EXACT[norm])
    assert model.sizes == [3, 3, 3]


@norms
def test_no_image_depends_on_the_others(norm: str, trained: Any) -> None:
    x, y = trained.x[:12], trained.y[:12].clone()
    y[:4] = (y[:4] + 1) % 10
    attack = Fab(norm=norm, eps=EPS[norm], steps=5, targets=2)
    together = nearest(attack, trained.model, x, y, enough=attack.eps)
    alone = [nearest(attack, trained.model, x[i : i + 1], y[i : i + 1], enough=attack.eps) for i in range(12)]
    # Misclassified images need no perturbation.
    assert torch.equal(together[:4], x[:4])
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4)


@norms
def test_random_start(norm: str, trained: Any) -> None:
    x, y = trained.x[:10], trained.y[:10]
    seen: list[Tensor] = []
    hook = trained.model.register_forward_hook(lambda module, args, out: seen.append(args[0].detach()))
    try:
        attack = Fab(norm=norm, eps=EPS[norm], steps=1, targets=1, random_start=True)
        first, again, other = (nearest(attack, trained.model, x, y, seed=seed) for seed in (0, 0, 1))
        fixed = Fab(norm=norm, eps=EPS[norm], steps=1, targets=1)
        assert torch.equal(nearest(fixed, trained.model, x, y), nearest(fixed, trained.model, x, y, seed=1))
    finally:
        hook.remove()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # The image itself is asked about first, then the start.
    length = attack.ball.distance(seen[1], x)
    assert length.max() <= attack.eps / 2 + 1e-6
    assert length.min() > 0.1 * attack.eps / 2


@norms
def test_restarts_from_random_points_find_more(norm: str, trained: Any) -> None:
    x, y = trained.x, trained.y
    fallen = [
        int((run_attack(trained.model, attack, x, y, generator=stream(0, "attack")).prediction != y).sum())
        for attack in (
            Fab(norm=norm, eps=EPS[norm], steps=2, targets=1, random_start=True, restarts=count) for count in (1, 3)
        )
    ]
    assert fallen[0] < fallen[1]
