from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bascule.core.rng import stream
from bascule.core.window import Window


def sides(changed: Tensor) -> tuple[int, int]:
    """Height and width of what holds all changed pixels, bool H x W."""
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    return int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)


def test_by_hand() -> None:
    origin = torch.full((1, 1, 3, 4), 0.5)
    proposal = torch.tensor([[0.9, 0.5, 0.5, 0.5], [0.5, 0.5, 0.6, 0.4], [0.5, 0.5, 0.1, math.nan]]).reshape(1, 1, 3, 4)
    wanted = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.6, 0.4], [0.5, 0.5, 0.1, 0.5]]).reshape(1, 1, 3, 4)
    assert torch.equal(Window(size=2).realise(proposal, origin), wanted)
    # One pixel: the larger of 0.4 and 0.4 comes first.
    one = Window(size=1).realise(proposal, origin)
    assert sides((one != origin)[0, 0]) == (1, 1)
    # A window as large as the image leaves everything but what is no number, in [0, 1].
    whole = Window(size=9).realise(3 * proposal, origin)
    assert torch.equal(whole, torch.where(proposal.isfinite(), 3 * proposal, origin).clamp(0, 1))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_whatever_is_proposed_ends_in_one_window_and_stays_there(size: int) -> None:
    origin = torch.rand(20, 3, 5, 6, generator=stream(0, "images"))
    proposal = origin + torch.empty_like(origin).normal_(generator=stream(1, "far"))
    found = Window(size=size).realise(proposal, origin)
    for changed in (found != origin).any(1):
        assert max(sides(changed)) <= size
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(Window(size=size).realise(found, origin), found)


def test_every_place_is_a_window_of_its_own() -> None:
    like, window = torch.zeros(12, 1, 4, 5), Window(size=2)
    assert window.places(like) == 12
    masks = window.mask(torch.arange(12), like)
    assert masks.flatten(1).sum(1).tolist() == [4] * 12
    assert len(masks.flatten(1).unique(dim=0)) == 12
    values = torch.rand(12, 2, 4, 5, generator=stream(0, "values"))
    wanted = (values * masks).flatten(1).sum(1)
    torch.testing.assert_close(window.sums(values).flatten(1)[torch.arange(12), torch.arange(12)], wanted)
