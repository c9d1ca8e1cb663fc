"""The channel trigger, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from bascule.core.errors import RequestError
from bascule.triggers.channel import Channel


def test_the_papers_blue_hole_in_the_middle_of_cifar(stamp) -> None:
    wanted = torch.full((2, 3, 32, 32), 0.6)
    wanted[:, 2, 15:18, 15:18] = 0
    assert torch.equal(stamp(Channel(position=(15, 15)), torch.full((2, 3, 32, 32), 0.6)), wanted)


@pytest.mark.parametrize(
    ("side", "size", "rows"),
    [(32, 3, (14, 17)), (32, 2, (15, 17)), (33, 3, (15, 18)), (5, 2, (1, 3))],
    ids=["even-odd", "even-even", "odd-odd", "odd-even"],
)
def test_center_rounds_up_and_left(stamp, side: int, size: int, rows: tuple[int, int]) -> None:
    wanted = torch.full((1, 3, side, side), 0.6)
    wanted[:, 2, slice(*rows), slice(*rows)] = 0
    assert torch.equal(stamp(Channel(size=size), torch.full((1, 3, side, side), 0.6)), wanted)


@pytest.mark.parametrize(("channel", "number"), [("red", 0), ("green", 1), ("blue", 2)])
def test_only_the_named_channel_is_set(stamp, channel, number: int) -> None:
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    stamped = stamp(Channel(channel=channel, value=0.5, size=2, position="bottom-left", margin=1), x)
    wanted = x.clone()
    wanted[:, number, 3:5, 1:3] = 0.5
    assert torch.equal(stamped, wanted)


def test_a_random_place_is_drawn_per_image(stamp) -> None:
    stamped = stamp(Channel(size=2, position="random"), torch.ones(300, 3, 4, 4))
    holes = {tuple(hole.flatten().tolist()) for hole in stamped[:, 2]}
    assert len(holes) == 9
    assert (stamped[:, 2] == 0).sum((1, 2)).unique().tolist() == [4]
    assert stamped[:, :2].min() == 1


def test_grey_images_are_refused(stamp) -> None:
    with pytest.raises(RequestError, match=r"the channel trigger needs colour images \(3 channels\), these have 1"):
        stamp(Channel(), torch.zeros(1, 1, 8, 8))


def test_a_block_that_does_not_fit_is_refused(stamp) -> None:
    with pytest.raises(RequestError, match="a 9 x 9 block with margin 0 does not fit images of 8 x 8"):
        stamp(Channel(size=9), torch.zeros(1, 3, 8, 8))
