from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor, nn

from bascule.attacks._boundary import gaps, likeliest_wrong, nearest, to_plane, to_plane_in_box
from bascule.core.ball import Norm, ball
from bascule.core.rng import stream

norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


def images(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[:, None, None, :]


# --- classes and gaps ------------------------------------------------------------------------------------------------


def test_likeliest_wrong_classes_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    y = torch.tensor([0, 2])
    assert likeliest_wrong(logits, y, 2).tolist() == [[2, 1], [0, 1]]
    assert likeliest_wrong(logits, y, 9).tolist() == [[2, 1, 3], [0, 1, 3]]


class StraightThrough(torch.autograd.Function):
    """Rounds on the way forward and does nothing on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x * 9).round() / 9

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Quantised(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(StraightThrough.apply(x))


@pytest.mark.parametrize("own_backward", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_gaps_are_differences_of_logits_with_their_gradients(own_backward: bool, count: int, trained: Any) -> None:
    model: nn.Module = Quantised(trained.model) if own_backward else trained.model
    x, y = trained.x[:6], trained.y[:6]
    with torch.no_grad():
        targets = likeliest_wrong(model(x), y, count)
        gap, gradient = gaps(model, x, y, targets)
    assert gap.shape == (6, count)
    assert not x.requires_grad
    assert not gap.requires_grad
    for i in range(6):
        for j in range(count):
            one = x[i : i + 1].clone().requires_grad_(True)
            logits = model(one)[0]
            difference = logits[targets[i, j]] - logits[y[i]]
            torch.testing.assert_close(gap[i, j], difference)
            (wanted,) = torch.autograd.grad(difference, one)
            torch.testing.assert_close(gradient[i, j], wanted[0], rtol=1e-4, atol=1e-5)


def test_nearest_by_hand() -> None:
    # Distances |gap| / dual norm: in Linf 6/6, 4/2 and in L2 6/sqrt 12, 4/2.
    gap = torch.tensor([[-6.0, -4.0]]).double()
    gradient = torch.tensor([[2.0, -2.0, 2.0], [0.0, 2.0, 0.0]]).double().reshape(1, 2, 1, 1, 3)
    for norm, wanted in (("linf", 0), ("l2", 0)):
        found, direction = nearest(gap, gradient, ball=ball(norm, 1.0))
        assert found.tolist() == [gap[0, wanted]]
        assert torch.equal(direction[0], gradient[0, wanted])
    # Weaker by half, the first is at 2 in Linf, behind 1.9, and at 3.46 in L2; a flat one is never the nearest.
    gap = torch.tensor([[-6.0, -3.8, -1e-9]], dtype=torch.float64)
    gradient = torch.cat([gradient / torch.tensor([2.0, 1.0]).reshape(1, 2, 1, 1, 1), torch.zeros(1, 1, 1, 1, 3)], 1)
    assert nearest(gap, gradient, ball=ball("linf", 1.0))[0].tolist() == [-3.8]
    # 4/sqrt 14 = 1.07 and 1/1: the norms disagree.
    gap = torch.tensor([[-4.0, -1.0]]).double()
    gradient = torch.tensor([[1.0, 2.0, 3.0], [1.0, 0.0, 0.0]]).double().reshape(1, 2, 1, 1, 3)
    assert nearest(gap, gradient, ball=ball("linf", 1.0))[0].tolist() == [-4.0]
    assert nearest(gap, gradient, ball=ball("l2", 1.0))[0].tolist() == [-1.0]


# --- to the plane ----------------------------------------------------------------------------------------------------


def test_to_plane_by_hand() -> None:
    gap, gradient = torch.tensor([-7.0, 5.0, 1.0]).double(), images([3.0, 4.0], [3.0, 4.0], [0.0, 0.0])
    found = to_plane(gap, gradient, ball=ball("linf", 1.0))
    assert found.flatten().tolist() == pytest.approx([1.0, 1.0, -5 / 7, -5 / 7, 0, 0])
    found = to_plane(gap, gradient, ball=ball("l2", 1.0))
    assert found.flatten().tolist() == pytest.approx([0.84, 1.12, -0.6, -0.8, 0, 0])


def test_to_plane_in_box_by_hand() -> None:
    # All could move by 0.25 to gain 1 in Linf; the first has room for 0.1 only, so the others go 0.3.
    x, w = images([0.9, 0.5, 0.5]), images([1.0, -2.0, 1.0])
    found = to_plane_in_box(x, torch.tensor([-1.0]).double(), w, ball=ball("linf", 1.0))
    assert found.flatten().tolist() == pytest.approx([0.1, -0.3, 0.3])
    # L2: moves in proportion to (1, -2, 1), 0.1 and then 0.9 = 5 * 0.18.
    found = to_plane_in_box(x, torch.tensor([-1.0]).double(), w, ball=ball("l2", 1.0))
    assert found.flatten().tolist() == pytest.approx([0.1, -0.36, 0.18])
    # From the other side; nothing hinders.
    found = to_plane_in_box(x, torch.tensor([1.0]).double(), w, ball=ball("linf", 1.0))
    assert found.flatten().tolist() == pytest.approx([-0.25, 0.25, -0.25])


def test_to_plane_in_box_by_hand_in_l1() -> None:
    # The steepest entry goes as far as it must, then the next one: 0.5 * 2 and then 0.1 * 1.5.
    x, w = images([0.9, 0.5, 0.5]), images([1.5, -2.0, 1.0])
    cases = [
        (-0.8, [0.0, -0.4, 0.0]),
        (0.8, [0.0, 0.4, 0.0]),
        (-1.0, [0.0, -0.5, 0.0]),
        (-1.075, [0.05, -0.5, 0.0]),
        (-1.45, [0.1, -0.5, 0.3]),
        (1.6, [-0.4, 0.5, 0.0]),
    ]
    for gap, wanted in cases:
        found = to_plane_in_box(x, torch.tensor([gap]).double(), w, ball=ball("l1", 1.0))
        assert found.flatten().tolist() == pytest.approx(wanted)


@norms
def test_out_of_reach_or_flat(norm: Norm) -> None:
    x = images([0.9, 0.5, 0.25], [0.9, 0.5, 0.25], [0.9, 0.5, 0.25])
    w = images([1.0, -2.0, 0.0], [0.0, 0.0, 0.0], [1.0, -2.0, 1.0])
    found = to_plane_in_box(x, torch.tensor([-5.0, -5.0, 0.0]).double(), w, ball=ball(norm, 1.0))
    # The corner nearest to the plane (an entry that does not count stays); no gradient; on the plane already.
    assert found[0].flatten().tolist() == pytest.approx([0.1, -0.5, 0.0])
    assert (found[1:] == 0).all()


def problems(count: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (many entries at the border of the box), gradients (some entries 0) and gaps that can be closed."""
    g = stream(seed, "problems")
    x = torch.empty(count, 1, 1, size).double().uniform_(-0.3, 1.3, generator=g).clamp_(0, 1)
    w = torch.empty_like(x).normal_(generator=g) * (torch.rand(x.shape, generator=g) < 0.9)
    inside = torch.rand(x.shape, generator=g).double()
    return x, w, (w * (x - inside)).flatten(1).sum(1)


def solved(norm: str, x: Any, w: Any, gap: float) -> float:
    """The least distance, by a general solver."""
    size = len(x)
    if norm == "l1":
        # Variables: what is added and what is taken away.
        limits = [*((0, room) for room in 1 - x), *((0, room) for room in x)]
        return optimize.linprog(np.ones(2 * size), A_eq=np.append(w, -w)[None], b_eq=[-gap], bounds=limits).fun
    if norm == "linf":
        # Variables: delta and a bound on its entries.
        rows = np.block([[np.eye(size), -np.ones((size, 1))], [-np.eye(size), -np.ones((size, 1))]])
        limits = [*zip(-x, 1 - x, strict=True), (0, None)]
        cost, equal = np.append(np.zeros(size), 1), np.append(w, 0)[None]
        return optimize.linprog(cost, rows, np.zeros(2 * size), equal, [-gap], limits).fun
    found = optimize.minimize(
        lambda d: d @ d,
        np.zeros(size),
        jac=lambda d: 2 * d,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints={"type": "eq", "fun": lambda d: w @ d + gap, "jac": lambda d: w},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return float(np.sqrt(found.fun))


@norms
def test_as_short_as_a_general_solver_finds(norm: Norm) -> None:
    x, w, gap = problems(60, 7, seed=0)
    region = ball(norm, 1.0)
    found = to_plane_in_box(x, gap, w, ball=region)
    lengths = region.distance(x + found, x)
    for i in range(60):
        wanted = solved(norm, x[i].flatten().numpy(), w[i].flatten().numpy(), gap[i].item())
        assert lengths[i].item() == pytest.approx(wanted, abs=1e-6)


@norms
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-9)], ids=str)
def test_conditions_of_the_optimum(norm: Norm, dtype: torch.dtype, tolerance: float) -> None:
    x, w, gap = (part.to(dtype) for part in problems(50, 700, seed=1))
    before = x.clone(), w.clone(), gap.clone()
    found = to_plane_in_box(x, gap, w, ball=ball(norm, 1.0))
    assert all(map(torch.equal, before, (x, w, gap)))
    assert found.dtype == dtype
    assert (x + found).min() >= -1e-6
    assert (x + found).max() <= 1 + 1e-6
    residual = (gap + (w * found).flatten(1).sum(1)).abs()
    assert (residual <= tolerance * (1 + gap.abs())).all()
    assert (found[w == 0] == 0).all()
    at_border = torch.where(-w * gap.sign().reshape(-1, 1, 1, 1) > 0, 1 - x, x) - found.abs() <= 1e-6
    for i in range(50):
        if norm == "l1":
            steepest_first(found[i], w[i], at_border[i])
        else:
            one_length(found[i], w[i].abs() if norm == "l2" else (w[i] != 0).to(dtype), at_border[i], tolerance)


def one_length(found: Tensor, speed: Tensor, at_border: Tensor, tolerance: float) -> None:
    """Of all free entries, in units of the steepest direction; entries at the border would go farther."""
    free = ~at_border & (speed > 0.01)
    lengths = found[free].abs() / speed[free]
    assert free.sum() > 10
    assert (lengths.max() - lengths.min()) <= 100 * tolerance * lengths.max()
    held = at_border & (speed > 0)
    assert (found[held].abs() <= lengths.max() * speed[held] * (1 + tolerance) + 1e-6).all()


def steepest_first(found: Tensor, w: Tensor, at_border: Tensor) -> None:
    """One entry at most stops on its way; all steeper ones have reached the border, none less steep has moved."""
    on_its_way = (found != 0) & ~at_border
    assert on_its_way.sum() <= 1
    moved = found != 0
    least = w[moved].abs().min()
    assert at_border[w.abs() > least].all()


@norms
def test_without_a_border_in_the_way_the_box_does_not_matter(norm: Norm) -> None:
    x, w, _ = problems(20, 50, seed=2)
    x, gap = torch.full_like(x, 0.5), torch.linspace(-1, 1, 20).double()
    region = ball(norm, 1.0)
    found = to_plane_in_box(x, gap, w, ball=region)
    torch.testing.assert_close(found, to_plane(gap, w, ball=region))
    torch.testing.assert_close(region.distance(found, 0 * x), gap.abs() / w.flatten(1).norm(p=DUAL[norm], dim=1))
