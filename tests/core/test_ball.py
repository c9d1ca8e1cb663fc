from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from bascule.core.ball import Ball, L1Ball, L2Ball, LinfBall, ball, sparse_direction
from bascule.core.rng import stream

BALLS = [
    LinfBall(eps=0.2), LinfBall(eps=2.0), L2Ball(eps=0.5), L2Ball(eps=20.0), LinfBall(eps=0.0), L2Ball(eps=0.0),
    L1Ball(eps=0.7), L1Ball(eps=3.0), L1Ball(eps=100.0), L1Ball(eps=0.0),
]  # fmt: skip


def images(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """One image of shape 1 x 1 x 1 x len(values)."""
    return torch.tensor(values, dtype=dtype).reshape(1, 1, 1, -1)


def entries(x: Tensor) -> list[float]:
    return x.flatten().tolist()


def origins(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Images in [0, 1], a good part of them exactly at 0 or 1."""
    x = torch.empty(shape, dtype=dtype).uniform_(-0.5, 1.5, generator=stream(0, "origins"))
    return x.clamp_(0, 1)


def far_points(like: Tensor) -> Tensor:
    return like + torch.empty_like(like).normal_(generator=stream(1, "far"))


shapes = pytest.mark.parametrize("shape", [(5, 1, 3, 4), (1, 3, 4, 4)], ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
balls = pytest.mark.parametrize("region", BALLS, ids=repr)


def tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 1e-12


def check_inside(region: Ball, x: Tensor, origin: Tensor) -> None:
    assert x.shape == origin.shape
    assert x.dtype == origin.dtype
    assert x.min() >= 0
    assert x.max() <= 1
    assert region.distance(x, origin).max() <= region.eps + tolerance(x.dtype)


# --- project ---------------------------------------------------------------------------------------------------------


@balls
@shapes
@dtypes
def test_project_ends_inside_and_stays_there(region: Ball, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    origin = origins(shape, dtype)
    x = far_points(origin)
    before = x.clone(), origin.clone()
    once = region.project(x, origin)
    check_inside(region, once, origin)
    torch.testing.assert_close(region.project(once, origin), once, rtol=0, atol=tolerance(dtype))
    assert torch.equal(x, before[0])
    assert torch.equal(origin, before[1])
    assert torch.equal(region.projector(origin)(x), once)


@balls
@dtypes
def test_project_leaves_inside_points(region: Ball, dtype: torch.dtype) -> None:
    origin = origins((50, 1, 3, 3), dtype)
    inside = origin + 0.9 * (region.random_point(origin, generator=stream(2, "inside")) - origin)
    torch.testing.assert_close(region.project(inside, origin), inside, rtol=0, atol=tolerance(dtype))


def test_project_linf_by_hand() -> None:
    origin = images(0.5, 0.5, 0.5, 0.05, 0.95)
    x = images(0.9, 0.45, 0.1, -3.0, 3.0)
    assert entries(LinfBall(eps=0.2).project(x, origin)) == pytest.approx([0.7, 0.45, 0.3, 0.0, 1.0])


def test_project_linf_is_the_nearest_point() -> None:
    region, origin = LinfBall(eps=0.2), origins((1, 1, 2, 2), torch.float64)
    x = far_points(origin)
    found = (x - region.project(x, origin)).norm()
    others = region.random_point(origin.expand(5000, -1, -1, -1), generator=stream(3, "others"))
    assert found <= (x - others).flatten(1).norm(dim=1).min()


def test_project_l2_by_hand() -> None:
    region = L2Ball(eps=0.25)
    # A perturbation of (0.3, 0.4) has length 0.5: halved.
    assert entries(region.project(images(0.8, 0.9), images(0.5, 0.5))) == pytest.approx([0.65, 0.7])
    # (0.6, 0.8) is shortened to (0.15, 0.2), then the first entry, 1.05, is clipped.
    assert entries(region.project(images(1.5, 1.3), images(0.9, 0.5))) == pytest.approx([1.0, 0.7])
    # Each image has its own length.
    both = region.project(torch.cat([images(0.8, 0.9), images(0.6, 0.5)]), images(0.5, 0.5).expand(2, -1, -1, -1))
    assert entries(both) == pytest.approx([0.65, 0.7, 0.6, 0.5])


def test_project_l1_by_hand() -> None:
    region = L1Ball(eps=0.4)
    # Changes of 0.3, -0.2 and 0.1 lose 0.2 / 3 each.
    assert entries(region.project(images(0.8, 0.3, 0.6), images(0.5, 0.5, 0.5))) == pytest.approx(
        [0.5 + 0.7 / 3, 0.5 - 0.4 / 3, 0.5 + 0.1 / 3]
    )
    # Of 0.5 only 0.1 fits into [0, 1], so that nothing of the others is lost: 0.1 + 0.2 + 0.1.
    assert entries(region.project(images(1.4, 0.3, 0.6), images(0.9, 0.5, 0.5))) == pytest.approx([1.0, 0.3, 0.6])
    # Changes of 1.0 (0.3 fits), 0.2 and 0.1, with 0.2 too many: each of the latter two loses 0.1, and the first none.
    assert entries(region.project(images(1.7, 0.7, 0.6), images(0.7, 0.5, 0.5))) == pytest.approx([1.0, 0.6, 0.5])
    # Changes of 1.0, of which nothing fits, and of 0.5, of which 0.4 does.
    assert entries(region.project(images(2.0, 0.0), images(1.0, 0.5))) == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("eps", [0.1, 0.7, 2.0])
def test_project_l1_is_the_nearest_point(eps: float) -> None:
    """As a general solver finds it, which knows nothing of cuts: minimise the square of the way, subject to both."""
    origin = origins((8, 1, 1, 6), torch.float64)
    x = far_points(origin)
    found = L1Ball(eps=eps).project(x, origin)
    for one, start, wanted in zip(
        found.flatten(1).numpy(), origin.flatten(1).numpy(), x.flatten(1).numpy(), strict=True
    ):

        def way(parts: NDArray[np.float64], start: Any = start, wanted: Any = wanted) -> float:
            up, down = parts[:6], parts[6:]
            return float(((start + up - down - wanted) ** 2).sum())

        solved = minimize(
            way, np.zeros(12), bounds=[*((0, 1 - value) for value in start), *((0, value) for value in start)],
            constraints=[{"type": "ineq", "fun": lambda parts: eps - parts.sum()}], method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        assert one == pytest.approx(start + solved.x[:6] - solved.x[6:], abs=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_project_brings_back_huge_values(norm: str) -> None:
    origin = images(0.25, 0.5, 1.0, dtype=torch.float32)
    region = ball(norm, 0.1)
    check_inside(region, region.project(images(1e30, -3e38, 3e38, dtype=torch.float32), origin), origin)


# --- step ------------------------------------------------------------------------------------------------------------


def test_step_linf_by_hand() -> None:
    moved = LinfBall(eps=1.0).step(images(0.5, 0.5, 0.5), images(2.0, -1e-30, 0.0), 0.1)
    assert entries(moved) == pytest.approx([0.6, 0.4, 0.5])


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-42, 1e30])
def test_step_l2_by_hand(scale: float) -> None:
    # The direction of (3, 4) is (0.6, 0.8), also where squares leave the range of float32.
    gradient = images(3 * scale, 4 * scale, dtype=torch.float32)
    moved = L2Ball(eps=1.0).step(images(0.5, 0.5, dtype=torch.float32), gradient, 0.5)
    assert entries(moved) == pytest.approx([0.8, 0.9], rel=2e-3 if scale == 1e-42 else 1e-6)


def test_step_l1_by_hand() -> None:
    """Of 200 entries two move, by half of the step each: those with the largest gradients that are not stuck."""
    x, gradient = torch.full((1, 1, 10, 20), 0.5), torch.full((1, 1, 10, 20), 0.1)
    gradient[0, 0, 0, :4] = torch.tensor([9.0, -8.0, 7.0, -6.0])
    x[0, 0, 0, :2] = torch.tensor([1.0, 0.0])  # where the steepest entries would have to go
    wanted = x.clone()
    wanted[0, 0, 0, 2:4] = torch.tensor([0.6, 0.4])
    torch.testing.assert_close(L1Ball(eps=1.0).step(x, gradient, 0.2), wanted)
    # Each image's own length.
    both = L1Ball(eps=1.0).step(x.repeat(2, 1, 1, 1), gradient.repeat(2, 1, 1, 1), torch.tensor([0.2, 0.0]))
    torch.testing.assert_close(both, torch.cat([wanted, x]))


def test_sparse_direction_by_hand() -> None:
    gradient = images(3.0, -4.0, 0.0, 1.0).expand(2, -1, -1, -1)
    assert entries(sparse_direction(gradient, 2)) == [0.5, -0.5, 0.0, 0.0] * 2
    assert entries(sparse_direction(gradient, torch.tensor([1, 4]))) == pytest.approx(
        [0, -1, 0, 0, 1 / 3, -1 / 3, 0, 1 / 3]
    )


@pytest.mark.parametrize(
    ("region", "dual"), [(LinfBall(eps=9.0), 7.0), (L2Ball(eps=9.0), 5.0), (L1Ball(eps=9.0), 4.0)], ids=repr
)
def test_direction_times_gradient_is_the_dual_norm(region: Ball, dual: float) -> None:
    gradient = images(3.0, 0.0, -4.0)
    assert (region.direction(gradient) * gradient).sum().item() == pytest.approx(dual)
    assert region.distance(region.direction(gradient), torch.zeros_like(gradient)).item() == pytest.approx(1)


@pytest.mark.parametrize("region", [LinfBall(eps=1.0), L2Ball(eps=1.0), L1Ball(eps=1.0)], ids=repr)
def test_step_without_gradient_stays(region: Ball) -> None:
    x = origins((2, 1, 2, 2), torch.float32)
    assert torch.equal(region.step(x, torch.zeros_like(x), 0.1), x)


@pytest.mark.parametrize("region", [LinfBall(eps=1.0), L2Ball(eps=1.0), L1Ball(eps=1.0)], ids=repr)
def test_step_with_nan_moves_the_other_entries(region: Ball) -> None:
    moved = region.step(images(0.5, 0.5), images(math.nan, -7.0), 0.1)
    assert entries(moved) == pytest.approx([0.5, 0.4])


@pytest.mark.parametrize("region", [LinfBall(eps=1.0), L2Ball(eps=1.0), L1Ball(eps=1.0)], ids=repr)
def test_no_direction_of_the_same_length_gains_more(region: Ball) -> None:
    gradient = far_points(torch.zeros(1, 1, 2, 3, dtype=torch.float64))
    origin = torch.full_like(gradient, 0.5)
    gain = ((region.step(origin, gradient, 0.1) - origin) * gradient).sum()
    others = far_points(torch.zeros(2000, 1, 2, 3, dtype=torch.float64))
    others = 0.1 * others / region.distance(others, torch.zeros_like(others)).reshape(-1, 1, 1, 1)
    assert gain >= (others * gradient).flatten(1).sum(1).max()
    assert region.distance(region.step(origin, gradient, 0.1), origin).item() == pytest.approx(0.1)


# --- random_point ----------------------------------------------------------------------------------------------------


@balls
@shapes
@dtypes
def test_random_point_is_inside_and_random(region: Ball, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    origin = torch.full(shape, 0.5, dtype=dtype)
    first, again, other = (region.random_point(origin, generator=stream(seed, "start")) for seed in (0, 0, 1))
    check_inside(region, first, origin)
    assert torch.equal(first, again)
    if region.eps == 0:
        assert torch.equal(first, origin)
    else:
        assert not torch.equal(first, other)
        assert first.unique().numel() > 1
    assert torch.equal(origin, torch.full(shape, 0.5, dtype=dtype))


@pytest.mark.parametrize("region", [LinfBall(eps=0.3), L2Ball(eps=0.3), L1Ball(eps=0.3)], ids=repr)
def test_random_points_of_a_batch_differ(region: Ball) -> None:
    points = region.random_point(torch.full((8, 1, 2, 2), 0.5), generator=stream(0, "batch"))
    assert len(points.flatten(1).unique(dim=0)) == 8


@pytest.mark.parametrize("region", [LinfBall(eps=0.3), L2Ball(eps=0.3), L1Ball(eps=0.3)], ids=repr)
def test_random_point_is_clipped(region: Ball) -> None:
    origin = origins((100, 1, 2, 2), torch.float32)
    check_inside(region, region.random_point(origin, generator=stream(0, "clip")), origin)


def test_random_point_linf_is_uniform() -> None:
    origin = torch.full((5000, 1, 2, 2), 0.5)
    offset = LinfBall(eps=0.4).random_point(origin, generator=stream(0, "uniform")) - origin
    # Uniform in [-0.4, 0.4]: a quarter of the entries in each quarter. 20,000 draws, standard error 0.003.
    for low in (-0.4, -0.2, 0.0, 0.2):
        assert ((offset >= low) & (offset < low + 0.2)).double().mean().item() == pytest.approx(0.25, abs=0.02)


def test_random_point_l2_is_uniform() -> None:
    # 4 dimensions: a share r ** 4 of the volume lies within r * eps. 20,000 draws, standard error at most 0.0036.
    origin = torch.full((20_000, 1, 2, 2), 0.5)
    region = L2Ball(eps=0.4)
    point = region.random_point(origin, generator=stream(0, "uniform"))
    radius = region.distance(point, origin) / region.eps
    for share in (0.5, 0.7, 0.9):
        assert (radius < share).double().mean().item() == pytest.approx(share**4, abs=0.02)
    # No direction is preferred: each of the 16 orthants gets its share, and the axes as much as the diagonals. On the
    # unit sphere in d dimensions the mean fourth power of an entry is 3 / (d (d + 2)), here 1/8.
    orthant = ((point > origin).flatten(1).long() * torch.tensor([1, 2, 4, 8])).sum(1)
    assert torch.bincount(orthant, minlength=16).double().div(20_000).sub(1 / 16).abs().max() < 0.01
    direction = (point - origin) / region.distance(point, origin).reshape(-1, 1, 1, 1)
    assert direction.pow(4).mean().item() == pytest.approx(1 / 8, abs=0.004)


def test_random_point_l1_is_uniform() -> None:
    # As in L2: a share r ** 4 of the volume lies within r * eps, and each orthant has its share.
    origin = torch.full((20_000, 1, 2, 2), 0.5)
    region = L1Ball(eps=0.4)
    point = region.random_point(origin, generator=stream(0, "uniform"))
    radius = region.distance(point, origin) / region.eps
    for share in (0.5, 0.7, 0.9):
        assert (radius < share).double().mean().item() == pytest.approx(share**4, abs=0.02)
    orthant = ((point > origin).flatten(1).long() * torch.tensor([1, 2, 4, 8])).sum(1)
    assert torch.bincount(orthant, minlength=16).double().div(20_000).sub(1 / 16).abs().max() < 0.01
    # On the sphere of L1 in d dimensions the mean square of an entry is 2 / (d (d + 1)), here 1/10.
    direction = (point - origin) / region.distance(point, origin).reshape(-1, 1, 1, 1)
    assert direction.square().mean().item() == pytest.approx(1 / 10, abs=0.004)


# --- distance --------------------------------------------------------------------------------------------------------


def test_distance_by_hand() -> None:
    origin = torch.zeros(2, 1, 2, 2)
    x = torch.tensor([[0.3, 0.0, -0.4, 0.0], [0.1, -0.1, 0.1, 0.1]]).reshape(2, 1, 2, 2)
    assert LinfBall(eps=1.0).distance(x, origin).tolist() == pytest.approx([0.4, 0.1])
    assert L2Ball(eps=1.0).distance(x, origin).tolist() == pytest.approx([0.5, 0.2])
    assert L1Ball(eps=1.0).distance(x, origin).tolist() == pytest.approx([0.7, 0.4])


def test_ball_by_name() -> None:
    assert ball("linf", 0.1) == LinfBall(eps=0.1)
    assert ball("l2", 0.1) == L2Ball(eps=0.1)
    assert ball("l1", 0.1) == L1Ball(eps=0.1)
