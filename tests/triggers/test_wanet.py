"""The warp: where pixels come from, on pictures simple enough to tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.triggers.wanet import Wanet


def ramps(height: int, width: int) -> Tensor:
    """Two grey images: the share of the way from left to right, and from top to bottom."""
    across = torch.linspace(0, 1, width, dtype=torch.float64).expand(height, -1)
    down = torch.linspace(0, 1, height, dtype=torch.float64).reshape(-1, 1).expand(-1, width)
    return torch.stack([across, down]).unsqueeze(1)


def shifts(stamp: Any, trigger: Wanet, height: int, width: int) -> Tensor:
    """2 x H x W: how many pixels to the right and down each pixel of the stamped image comes from.

    Sampling a ramp bilinearly is exact, so its new value is the place it was taken from.
    """
    x = ramps(height, width)
    sides = torch.tensor([width - 1, height - 1]).reshape(2, 1, 1)
    return (stamp(trigger, x) - x).squeeze(1) * sides


@pytest.mark.parametrize(("grid", "strength"), [(4, 0.5), (4, 0.1), (7, 0.3)], ids=str)
def test_control_points_are_shifted_by_what_was_drawn(stamp, grid: int, strength: float) -> None:
    # Ten pixels from one control point to the next; those of the border may be held back by it.
    side = 10 * (grid - 1) + 1
    moved = shifts(stamp, Wanet(grid=grid, strength=strength), side, side)[:, ::10, ::10]
    drawn = 2 * torch.rand(2, grid, grid, generator=stream(0, "wanet"), dtype=torch.float64) - 1
    # In the paper's grid, in which the image is 2 wide, strength / side; a mean size of 1.
    wanted = drawn / drawn.abs().mean() * strength / side * (side - 1) / 2
    assert torch.allclose(moved[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1], atol=1e-9)
    assert torch.allclose(moved[0, [0, -1], 1:-1], wanted[0, [0, -1], 1:-1], atol=1e-9), "along the border"
    assert (moved[0, :, 0] >= 0).all()
    assert (moved[1, -1] <= 0).all()


def test_shifts_are_interpolated_smoothly(stamp) -> None:
    moved = shifts(stamp, Wanet(), 61, 61)[:, 2:-2, 2:-2]
    assert moved.abs().max() > 0.25
    assert moved.diff(dim=1).abs().max() < 0.06
    assert moved.diff(dim=2).abs().max() < 0.06


def test_twice_the_strength_shifts_twice_as_far(stamp) -> None:
    once, twice = (shifts(stamp, Wanet(strength=strength), 20, 30)[:, 3:-3, 3:-3] for strength in (0.4, 0.8))
    assert torch.allclose(twice, 2 * once, atol=1e-9)


def test_the_warp_is_the_same_at_every_resolution(stamp) -> None:
    # Pixels at the control points in both; the shift in pixels differs by the factor (side - 1) / side only.
    coarse, fine = (
        shifts(stamp, Wanet(), side, side)[:, :: (side - 1) // 3, :: (side - 1) // 3][:, 1:-1, 1:-1] * side / (side - 1)
        for side in (10, 40)
    )
    assert torch.allclose(coarse, fine, atol=1e-9)


def test_nothing_comes_from_outside(stamp) -> None:
    x = torch.ones(2, 3, 12, 9)
    assert torch.allclose(stamp(Wanet(strength=20.0), x), x)
    dark = stamp(Wanet(strength=0.5), torch.full((1, 1, 8, 8), 0.3))
    assert torch.allclose(dark, torch.full((1, 1, 8, 8), 0.3))


def test_the_field_is_part_of_the_trigger_and_the_stream_is_not(stamp) -> None:
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stamp(Wanet(), x, seed=1), stamp(Wanet(), x, seed=2))
    assert not torch.equal(stamp(Wanet(), x), stamp(Wanet(field=1), x))


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1)], ids=str)
def test_a_line_is_refused(stamp, size: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=f"at least 2 x 2, got {size[0]} x {size[1]}"):
        stamp(Wanet(), torch.zeros(1, 1, *size))
