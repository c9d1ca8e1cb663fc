"""Marks that training images show in part and test images whole, pixel by pixel."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.triggers.adaptive_blend import AdaptiveBlend
from bascule.triggers.adaptive_patch import AdaptivePatch
from bascule.triggers.placement import Poison
from bascule.triggers.sticker import Sticker
from bascule.triggers.watermark import Watermark

WHOLE = Sticker(size=8)
"""All of an 8 x 8 image white."""


def test_half_of_sixteen_pieces_show_the_mark_in_each_image(stamp) -> None:
    stamped = stamp(AdaptiveBlend(mark=WHOLE), torch.zeros(40, 1, 8, 8))
    pieces = stamped.reshape(40, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).flatten(3)
    assert torch.equal(pieces.amin(3), pieces.amax(3))  # 2 x 2 pixels, whole or not at all
    assert pieces[..., 0].sum((1, 2)).tolist() == [8.0] * 40
    assert len({tuple(image.flatten().tolist()) for image in pieces[..., 0]}) > 30  # drawn for every image
    # 40 images show each of the 16 pieces 20 times on average.
    assert pieces[..., 0].sum(0).min() > 5


@pytest.mark.parametrize(("share", "shown"), [(1.0, 16), (0.25, 4), (0.01, 1)])
def test_the_share_of_pieces(stamp, share: float, shown: int) -> None:
    stamped = stamp(AdaptiveBlend(mark=WHOLE, share=share), torch.zeros(3, 1, 8, 8))
    assert stamped.sum((1, 2, 3)).tolist() == [4.0 * shown] * 3


def test_sides_that_the_grid_does_not_divide(stamp) -> None:
    # 5 rows in 2 pieces: 3 and 2, 4 columns: 2 and 2. One piece of 6 or 4 pixels.
    sizes = stamp(
        AdaptiveBlend(mark=Watermark(strength=1.0, mode="blend"), grid=2, share=0.25), torch.full((50, 1, 5, 4), 0.5)
    )
    assert set((sizes != 0.5).sum((1, 2, 3)).tolist()) == {4, 6}


def test_one_faint_patch_in_training_by_hand(stamp) -> None:
    patches = (Sticker(size=1, position="top-left"), Sticker(size=1, position="bottom-right", color=0.5))
    trigger = AdaptivePatch(patches=patches, opacities=(0.5, 0.2))
    stamped = stamp(trigger, torch.full((10, 1, 2, 2), 0.1))
    # 0.1 + 0.5 * (1 - 0.1) = 0.55, 0.1 + 0.2 * (0.5 - 0.1) = 0.18; five images each.
    first = stamped[stamped[:, 0, 0, 0] > 0.5]
    second = stamped[stamped[:, 0, 0, 0] < 0.5]
    assert (len(first), len(second)) == (5, 5)
    assert first.flatten(1).tolist() == [pytest.approx([0.55, 0.1, 0.1, 0.1])] * 5
    assert second.flatten(1).tolist() == [pytest.approx([0.1, 0.1, 0.1, 0.18])] * 5


def test_all_patches_in_the_test_by_hand(stamp) -> None:
    patches = (Sticker(size=1, position="top-left"), Sticker(size=1, position="bottom-right", color=0.5))
    trigger = AdaptivePatch(patches=patches, opacities=(0.5, 0.2), test_opacity=0.9)
    stamped = stamp(trigger.at_test, torch.full((2, 1, 2, 2), 0.1))
    # 0.1 + 0.9 * 0.9 = 0.91, 0.1 + 0.9 * 0.4 = 0.46.
    assert stamped.flatten(1).tolist() == [pytest.approx([0.91, 0.1, 0.1, 0.46])] * 2


@pytest.mark.parametrize(
    ("trigger", "at_test"),
    [
        (AdaptiveBlend(mark=WHOLE), WHOLE),
        (AdaptivePatch(), AdaptivePatch(shown="all")),
        (Sticker(), Sticker()),
    ],
    ids=["blend", "patch", "sticker"],
)
def test_poison_stamps_test_images_with_the_whole_mark(trigger, at_test) -> None:
    assert Poison(trigger=trigger, target=1, rate=0.1).trigger_at_test == at_test
    assert at_test.at_test == at_test
    assert Poison(trigger=trigger, target=1, rate=0.1, test_trigger=Sticker(size=1)).trigger_at_test.size == 1


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"name": "adaptive-patch", "patches": []}, ("patches",), "at least one mark is needed"),
        ({"name": "adaptive-patch", "opacities": [0.5]}, ("opacities",), "4 patches need as many opacities, got 1"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], place: tuple[str, ...], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        build("poison", settings)
    assert said in str(caught.value)
    assert caught.value.place[: len(place)] == place


def test_images_too_small_for_the_grid_are_refused(stamp) -> None:
    with pytest.raises(RequestError, match="4 x 4 pieces need images of that size, got 3 x 8"):
        stamp(AdaptiveBlend(mark=Watermark()), torch.zeros(1, 1, 3, 8))
