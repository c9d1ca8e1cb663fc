"""Resized crops: against one `F.interpolate` per image, and the draws against those of torchvision's description."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bascule.core import rng
from bascule.core.catalog import construct
from bascule.core.errors import RequestError
from bascule.training.crop import ResizedCrop, enlarge
from bascule.training.settings import Augment


@pytest.mark.parametrize("size", [(8, 8), (28, 20), (7, 33)])
def test_each_image_is_its_own_part_enlarged(size: tuple[int, int]) -> None:
    generator = rng.stream(0, "crop")
    x = torch.rand(60, 3, *size, generator=generator)
    parts = ResizedCrop().draw(60, *size, generator=generator)
    found = enlarge(x, *parts)
    for image, one, top, left, tall, wide in zip(x, found, *(part.tolist() for part in parts), strict=True):
        part = image[:, top : top + tall, left : left + wide].unsqueeze(0)
        wanted = F.interpolate(part, size=size, mode="bilinear", align_corners=False)
        assert torch.allclose(one, wanted[0], atol=1e-5)


def test_a_part_by_hand() -> None:
    """The left half of two columns is one column; of four, two that are read at -1/4, 1/4, 3/4 and 5/4 pixels."""
    x = torch.tensor([0.0, 1.0, 0.3, 0.7]).expand(1, 1, 4, 4)
    corner, four = torch.tensor([0]), torch.tensor([4])
    found = enlarge(x, corner, corner, four, torch.tensor([2]))
    assert torch.allclose(found, torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(1, 1, 4, 4))


def test_the_whole_image_stays_as_it_is() -> None:
    x = torch.rand(5, 1, 8, 8, generator=rng.stream(0, "crop"))
    whole = ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert torch.allclose(whole.apply(x, generator=rng.stream(0, "draw")), x, atol=1e-6)


def test_areas_and_ratios_are_those_asked_for() -> None:
    top, left, tall, wide = ResizedCrop(scale=(0.2, 0.6)).draw(4000, 64, 64, generator=rng.stream(0, "draw"))
    area, ratio = (tall * wide) / 64**2, wide / tall
    assert 0.19 < float(area.min()) < 0.22
    assert 0.58 < float(area.max()) < 0.62
    assert float(area.mean()) == pytest.approx(0.4, abs=0.01)
    assert float(ratio.log().mean()) == pytest.approx(0, abs=0.01)
    assert float(ratio.min()) > 0.72
    assert float(ratio.max()) < 1.4
    assert int(top.min()) == int(left.min()) == 0
    assert bool((top + tall <= 64).all())
    assert bool((left + wide <= 64).all())
    assert int((top + tall).max()) == int((left + wide).max()) == 64


def test_where_nothing_fits_it_is_the_largest_part_in_the_middle() -> None:
    """As torchvision falls back: all ten draws are wider than the image."""
    wide_only = ResizedCrop(scale=(1.0, 1.0), ratio=(2.0, 2.0))
    top, left, tall, wide = (part.tolist() for part in wide_only.draw(3, 20, 20, generator=rng.stream(0, "draw")))
    assert (top, left, tall, wide) == ([5] * 3, [0] * 3, [10] * 3, [20] * 3)
    tall_only = ResizedCrop(scale=(1.0, 1.0), ratio=(0.5, 0.5))
    top, left, tall, wide = (part.tolist() for part in tall_only.draw(3, 20, 20, generator=rng.stream(0, "draw")))
    assert (top, left, tall, wide) == ([0] * 3, [5] * 3, [20] * 3, [10] * 3)


def test_it_comes_before_shift_and_mirror_and_stays_in_range() -> None:
    x = torch.rand(40, 3, 8, 8, generator=rng.stream(0, "crop"))
    both = Augment(resized_crop=ResizedCrop(), pad=2, flip=True)
    one = rng.stream(0, "draw")
    found = both.apply(x, generator=one)
    other = rng.stream(0, "draw")
    assert torch.equal(found, Augment(pad=2, flip=True).apply(ResizedCrop().apply(x, generator=other), generator=other))
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert len({tuple(image.flatten().tolist()) for image in found}) == 40


@pytest.mark.parametrize(
    ("crop", "place", "told"),
    [
        ({"scale": [0.5, 0.2]}, "resized_crop.scale", r"above 0 and up to 1, got \[0.5, 0.2\]"),
        ({"scale": [0, 1]}, "resized_crop.scale", r"got \[0, 1\]"),
        ({"scale": [0.1, 2]}, "resized_crop.scale", r"got \[0.1, 2\]"),
        ({"ratio": [-1, 1]}, "resized_crop.ratio", r"above 0, got \[-1, 1\]"),
    ],
)
def test_what_is_no_part_is_refused(crop: dict[str, Any], place: str, told: str) -> None:
    with pytest.raises(RequestError, match=told) as caught:
        construct(Augment, {"resized_crop": crop})
    assert ".".join(caught.value.place) == place


def test_a_study_gives_it_as_a_mapping() -> None:
    assert construct(Augment, {"resized_crop": {}}) == Augment(resized_crop=ResizedCrop())
