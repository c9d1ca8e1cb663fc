"""Motions, against SciPy's, which know nothing of ours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from bascule.core.motion import Motions
from bascule.core.rng import stream

WIDE = Motions(degrees=180.0, pixels=9.0)


def pictures(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, dtype=dtype, generator=stream(0, "images"))


def test_by_hand() -> None:
    x = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]], dtype=torch.float64).reshape(1, 1, 3, 3)
    # A quarter of a turn clockwise: what is on the left comes up.
    turned = WIDE.realise(torch.tensor([[90.0, 0.0, 0.0]], dtype=torch.float64), x)
    torch.testing.assert_close(turned, torch.rot90(x, -1, (2, 3)))
    # Down by one and to the right by half a pixel.
    shifted = WIDE.realise(torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64), x)
    wanted = torch.tensor([[0.0, 0.0, 0.0], [0.05, 0.15, 0.25], [0.2, 0.45, 0.55]], dtype=torch.float64)
    torch.testing.assert_close(shifted, wanted.reshape(1, 1, 3, 3))


@pytest.mark.parametrize("motion", [(25.0, 0.0, 0.0), (0.0, 1.5, -2.0), (-40.0, -0.3, 1.7)], ids=str)
def test_as_scipy_does_it(motion: tuple[float, float, float]) -> None:
    x = pictures(1, 2, 7, 5)
    found = WIDE.realise(torch.tensor([motion], dtype=torch.float64), x)
    angle, shift = math.radians(motion[0]), np.array(motion[1:])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])  # (row, column)
    middle = np.array([3.0, 2.0])
    for channel in range(2):
        theirs = affine_transform(
            x[0, channel].numpy(), turn.T, offset=middle - turn.T @ (middle + shift), order=1, mode="grid-constant"
        )
        assert found[0, channel].numpy() == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_does_not_move_stays_to_the_bit(dtype: torch.dtype) -> None:
    x = pictures(3, 1, 5, 6, dtype=dtype)
    motion = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.2], [math.nan, math.inf, -math.inf]])
    found = WIDE.realise(motion, x)
    assert found.dtype == dtype
    assert torch.equal(found[[0, 2]], x[[0, 2]])
    assert not torch.equal(found[1], x[1])


def test_more_than_is_allowed_is_cut() -> None:
    x = pictures(2, 3, 6, 6)
    asked = torch.tensor([[90.0, -5.0, 0.5], [-31.0, 0.0, 9.0]], dtype=torch.float64)
    allowed = torch.tensor([[30.0, -2.0, 0.5], [-30.0, 0.0, 2.0]], dtype=torch.float64)
    found = Motions(degrees=30.0, pixels=2.0).realise(asked, x)
    assert torch.equal(found, WIDE.realise(allowed, x))
    assert found.min() >= 0
    assert found.max() <= 1


def test_words() -> None:
    assert Motions(degrees=30.0, pixels=2.5).words == "turned by up to 30 degrees, shifted by up to 2.5 pixels"
