from __future__ import annotations

import math

import pytest
import torch

from bascule.explanations.attention import changed_pixels, changed_share, trigger_attention


def test_by_hand() -> None:
    heat = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 5.0]], [[5.0, 0.0], [0.0, 0.0]]])
    changed = torch.tensor([[[False, True], [False, True]]] + [[[False, False], [False, True]]] * 2)
    assert trigger_attention(heat, changed).tolist() == [0.6, 1.0, 0.0]
    assert changed_share(changed).tolist() == [0.5, 0.25, 0.25]


def test_even_heat_gives_the_changed_share() -> None:
    changed = torch.rand(5, 9, 7, generator=torch.Generator().manual_seed(0)) < 0.3
    found = trigger_attention(torch.full((5, 9, 7), 0.1), changed)
    assert found.tolist() == pytest.approx(changed_share(changed).tolist())


def test_heat_is_not_normalised() -> None:
    heat = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0))
    changed = heat > 0.5
    for scale in (1e-30, 1e30):
        assert torch.allclose(trigger_attention(heat * scale, changed), trigger_attention(heat, changed), rtol=1e-5)


def test_no_heat_and_no_change_do_not_count() -> None:
    heat = torch.stack([torch.zeros(2, 2), torch.ones(2, 2), torch.ones(2, 2)])
    changed = torch.stack([torch.ones(2, 2), torch.zeros(2, 2), torch.ones(2, 2)]).bool()
    found = trigger_attention(heat, changed).tolist()
    assert math.isnan(found[0])
    assert math.isnan(found[1])
    assert found[2] == 1.0


def test_a_pixel_is_changed_when_any_channel_is() -> None:
    x = torch.zeros(1, 3, 2, 2)
    stamped = x.clone()
    stamped[0, 2, 0, 1] = 1 / 255
    assert changed_pixels(x, stamped).tolist() == [[[False, True], [False, False]]]
