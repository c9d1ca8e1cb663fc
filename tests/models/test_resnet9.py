"""ResNet-9: its shape, and what its settings do."""

from __future__ import annotations

import pytest
import torch

from bascule.core.catalog import build
from bascule.core.errors import RequestError


def net(size: tuple[int, int, int] = (3, 32, 32), **settings: object) -> torch.nn.Module:
    return build("models", {"name": "resnet9", **settings}).initialised(size, 10, seed=0)


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    # Nine convolutions of 9 * in * out, batch norms of 2 * out, and the linear layer, by hand.
    widths = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    expected = sum(9 * i * o + 2 * o for i, o in widths) + 512 * 10 + 10
    assert sum(p.numel() for p in net().parameters()) == expected == 6_573_130


@pytest.mark.parametrize(("side", "stem", "map_side"), [(32, 1, 4), (32, 2, 2), (64, 4, 2), (9, 1, 1)])
def test_the_stem_sets_the_size_of_the_maps(side: int, stem: int, map_side: int) -> None:
    model = net((3, side, side), stem=stem, widths=(4, 4, 4, 4)).eval()
    assert model[:7](torch.rand(1, 3, side, side)).shape[2:] == (map_side, map_side)


def test_denoising_starts_from_the_same_weights() -> None:
    plain, denoised = (net(widths=(4, 8, 8, 8), denoise=denoise).state_dict() for denoise in (False, True))
    assert set(plain) < set(denoised)
    assert all(torch.equal(value, denoised[name]) for name, value in plain.items())


@pytest.mark.parametrize(
    ("size", "settings", "said"),
    [
        ((3, 7, 32), {}, "needs at least 8 x 8, got 7 x 32"),
        ((3, 32, 32), {"stem": 8}, "a stem of 8 needs at least 64 x 64"),
        ((3, 32, 32), {"widths": (4, 7, 8, 8), "denoise": True}, "denoise needs even widths"),
        ((3, 32, 32), {"widths": (4, 8, 8)}, "widths"),
    ],
)
def test_what_cannot_be_built_is_refused(size: tuple[int, int, int], settings: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        net(size, **settings)
