"""Fewer colours: rounding and error diffusion, by hand and against one pixel after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bascule.core.images import as_bytes, as_floats
from bascule.core.rng import stream
from bascule.triggers.bpp import Bpp


def one_by_one(channel: list[list[float]], levels: int) -> list[list[float]]:
    """Error diffusion along the rows, one pixel after another, for one channel in [0, 1]: Floyd & Steinberg 1976."""
    rows = [list(row) for row in channel]
    height, width = len(rows), len(rows[0])
    for y in range(height):
        for x in range(width):
            old = rows[y][x]
            new = round(old * (levels - 1)) / (levels - 1)
            rows[y][x] = new
            for down, right, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if y + down < height and 0 <= x + right < width:
                    rows[y + down][x + right] += (old - new) * share / 16
    return rows


def test_without_dithering_each_pixel_takes_the_nearest_level(stamp) -> None:
    # Five levels: 0, 1/4, 1/2, 3/4, 1. Halves go to the even one: 1/8 to 0, 3/8 to 1/2.
    x = torch.tensor([0.1, 0.125, 0.13, 0.375, 0.6, 0.9]).reshape(1, 1, 1, 6)
    stamped = stamp(Bpp(levels=5, dither=False), x)
    assert stamped.flatten().tolist() == [0, 0, 0.25, 0.5, 0.5, 1]


def test_errors_go_to_the_four_neighbours(stamp) -> None:
    # Black and white. The first pixel, 0.4, turns black and hands on 0.4: 7/16 to the right, 5/16 below, 1/16 below
    # right. The second is 0.3 + 0.175 = 0.475: black, and hands 3/16 of that below left. The first below is
    # 0.3 + 0.125 + 0.0890625 = 0.5140625: white. Its error, -0.4859375, leaves 0.4 + 0.025 + 0.1484375 - 0.21259765625.
    x = torch.tensor([[0.4, 0.3], [0.3, 0.4]], dtype=torch.float64).reshape(1, 1, 2, 2)
    assert stamp(Bpp(levels=2), x).flatten().tolist() == [0, 0, 1, 0]
    # A little more below right turns white what rounding alone would leave black.
    x[0, 0, 1, 1] = 0.55
    assert stamp(Bpp(levels=2), x).flatten().tolist() == [0, 0, 1, 1]
    x[0, 0, 1, 1] = 0.53
    assert stamp(Bpp(levels=2), x).flatten().tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("levels", [2, 3, 8, 32])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (9, 12), (12, 5)], ids=str)
def test_all_at_once_is_one_after_another(stamp, levels: int, size: tuple[int, int]) -> None:
    pixels = torch.randint(256, (3, 3, *size), generator=stream(0, "images"), dtype=torch.uint8)
    x = as_floats(pixels).double()
    wanted = [[one_by_one(channel.tolist(), levels) for channel in image] for image in x]
    stamped = stamp(Bpp(levels=levels), x)
    assert torch.allclose(stamped, torch.tensor(wanted, dtype=torch.float64).clamp(0, 1), rtol=0, atol=1e-12)


def test_as_many_levels_as_said_and_the_mean_is_kept(stamp) -> None:
    grey = torch.full((1, 1, 28, 28), 0.4)
    for levels in (2, 8):
        stamped = stamp(Bpp(levels=levels), grey)
        assert torch.allclose(stamped * (levels - 1), (stamped * (levels - 1)).round(), atol=1e-5)
        assert len(as_bytes(stamped).unique()) == 2
        assert abs(float(stamped.mean()) - 0.4) < 0.02
        flat = stamp(Bpp(levels=levels, dither=False), grey)
        assert len(flat.unique()) == 1


def test_what_has_no_other_colours_stays(stamp) -> None:
    x: Tensor = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2).expand(1, 3, 4, 2)
    assert torch.equal(stamp(Bpp(), x), x)
