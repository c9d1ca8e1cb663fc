"""A trigger read back from the picture of the images that carry it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bascule.core import catalog
from bascule.report.drawing.trigger import Pairs, likeness, on_grey, read_pairs
from bascule.triggers.contract import Trigger

SIZE = (3, 12, 12)
TRIGGERS = [
    {"name": "sticker", "size": 3, "pattern": "checker", "margin": 1},
    {"name": "channel", "channel": "blue", "value": 0.0, "size": 3},
    {"name": "watermark", "strength": 0.25, "margin": 1},
    {"name": "watermark", "pattern": "silhouette", "strength": 0.25},
    {"name": "watermark", "mode": "blend", "strength": 0.4},
]


def stamped(settings: dict[str, object], x: Tensor) -> Tensor:
    trigger = catalog.build("poison", settings)
    assert isinstance(trigger, Trigger)
    return trigger.stamp(x, generator=torch.Generator().manual_seed(0))


def png(x: Tensor, with_trigger: Tensor) -> bytes:
    """As a run keeps it: images side by side, the stamped ones below."""
    sheet = torch.cat([torch.cat(list(part), dim=2) for part in (x, with_trigger)], dim=1)
    pixels = (sheet * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def pairs_of(settings: dict[str, object], size: tuple[int, int, int] = SIZE) -> Pairs:
    x = torch.rand(8, *size, generator=torch.Generator().manual_seed(1))
    pairs = read_pairs(png(x, stamped(settings, x)), size)
    assert pairs is not None
    return pairs


@pytest.mark.parametrize("size", [SIZE, (1, 12, 12)], ids=["colour", "grey"])
@pytest.mark.parametrize("settings", TRIGGERS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_what_a_trigger_makes_of_grey_is_what_stamping_grey_makes(
    settings: dict[str, object], size: tuple[int, int, int]
) -> None:
    if settings["name"] == "channel" and size[0] == 1:
        pytest.skip("there is no blue in a grey image")
    drawn = on_grey(pairs_of(settings, size)).astype(float)
    true = 255 * stamped(settings, torch.full((1, *size), 128 / 255))[0].numpy()
    assert np.abs(drawn - true).max() <= 3


def test_a_sticker_on_a_border_that_is_always_black() -> None:
    x = torch.zeros(4, 1, 3, 3)
    with_trigger = x.clone()
    with_trigger[:, :, 2, 2] = 0.6
    pairs = read_pairs(png(x, with_trigger), (1, 3, 3))
    assert pairs is not None
    assert on_grey(pairs)[0].tolist() == [[128, 128, 128], [128, 128, 128], [128, 128, 153]]


def test_pictures_that_hold_no_pair() -> None:
    assert read_pairs(b"no picture", SIZE) is None
    assert read_pairs(png(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)), SIZE) is None


def test_the_true_trigger_is_most_like_itself() -> None:
    pairs = pairs_of({"name": "sticker", "size": 3, "pattern": "solid"})
    pattern: NDArray[np.uint8] = np.full(SIZE, 255, dtype=np.uint8)
    mask: NDArray[np.uint8] = np.zeros((1, *SIZE[1:]), dtype=np.uint8)
    assert likeness(pairs, pattern, mask) is None  # it changes nothing
    mask[:, :3, :3] = 255
    assert likeness(pairs, pattern, mask) == 0  # elsewhere
    mask[:, :3, :3], mask[:, -3:, -3:] = 0, 255
    assert likeness(pairs, pattern, mask) == pytest.approx(1)
    mask[:, -3:, -3:] = 51  # fainter, the same everywhere
    assert likeness(pairs, pattern, mask) == pytest.approx(1)
    inverse = np.zeros_like(pattern)
    assert likeness(pairs, inverse, mask) < 0
