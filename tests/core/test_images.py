"""Labelled images: what is refused, what a batch is, and that replacing leaves the original alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.images import Images, Pixels, as_bytes, as_floats, channel_axis, channels_first, only_marks

PIXELS = torch.arange(6 * 2 * 2, dtype=torch.uint8).reshape(6, 1, 2, 2) * 10
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
IDS = torch.tensor([100, 7, 8, 42, 3, 55])


class Decoder:
    """Pictures decoded on demand; counts how many were."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.shape, self.decoded = pixels, pixels.shape, 0

    def __getitem__(self, index: Tensor, /) -> Tensor:
        self.decoded += len(index)
        return torch.stack([self.pixels[int(place)] for place in index])


STORES = {"in-memory": lambda: PIXELS.clone(), "decoded": lambda: Decoder(PIXELS.clone())}


def some(pixels: Pixels | None = None, **changes: Any) -> Images:
    fields = {"labels": LABELS.clone(), "ids": IDS.clone(), "classes": ("a", "b", "c"), **changes}
    return Images(pixels=PIXELS.clone() if pixels is None else pixels, **fields)


@pytest.fixture(params=STORES, ids=str)
def images(request: pytest.FixtureRequest) -> Images:
    return some(STORES[request.param]())


PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "two-dimensions": ({"pixels": PIXELS[:, 0, 0]}, r"N x C x H x W with 1 or 3 channels, got shape \(6, 2\)"),
    "channels-last": ({"pixels": PIXELS.expand(6, 2, 2, 2)}, r"1 or 3 channels, got shape \(6, 2, 2, 2\)"),
    "floats": ({"pixels": PIXELS / 255}, r"stored as uint8 \(0 to 255\), got torch.float32"),
    "empty": ({"pixels": PIXELS[:0], "labels": LABELS[:0], "ids": IDS[:0]}, "holds no images"),
    "labels-too-few": ({"labels": LABELS[:5]}, r"6 images but labels of shape \(5,\)"),
    "labels-in-a-column": ({"labels": LABELS.unsqueeze(1)}, r"6 images but labels of shape \(6, 1\)"),
    "ids-too-many": ({"ids": torch.arange(7)}, r"6 images but ids of shape \(7,\)"),
    "labels-of-bytes": ({"labels": LABELS.to(torch.uint8)}, "labels must be int64, got torch.uint8"),
    "ids-of-floats": ({"ids": IDS.to(torch.float32)}, "ids must be int64, got torch.float32"),
    "label-beyond": ({"labels": LABELS + 1}, r"labels must lie in 0\.\.2, found 1\.\.3"),
    "label-below": ({"labels": LABELS - 1}, r"labels must lie in 0\.\.2, found -1\.\.1"),
}


@pytest.mark.parametrize(("changes", "said"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        some(**changes)


def test_size_length_and_device(images: Images) -> None:
    assert len(images) == 6
    assert images.size == (1, 2, 2)
    assert images.device == torch.device("cpu")


def test_a_batch_is_floats_between_zero_and_one_in_the_asked_order(images: Images) -> None:
    batch = images.batch(torch.tensor([5, 0, 5]))
    assert batch.shape == (3, 1, 2, 2)
    assert batch.dtype == torch.float32
    assert batch[0].flatten().tolist() == pytest.approx([200 / 255, 210 / 255, 220 / 255, 230 / 255])
    assert torch.equal(batch[0], batch[2])
    batch.zero_()
    assert images.batch(torch.tensor([5])).max() > 0.9
    assert some(torch.full((6, 1, 2, 2), 255, dtype=torch.uint8)).batch(torch.tensor([0])).max() == 1


def test_at_keeps_order_and_ids_and_can_be_repeated(images: Images) -> None:
    part = images.at(torch.tensor([4, 1, 0]))
    assert part.ids.tolist() == [3, 7, 100]
    assert part.labels.tolist() == [1, 1, 0]
    assert torch.equal(part.batch(torch.arange(3)), images.batch(torch.tensor([4, 1, 0])))
    again = part.at(torch.tensor([2, 0]))
    assert again.ids.tolist() == [100, 3]
    assert torch.equal(again.batch(torch.arange(2)), images.batch(torch.tensor([0, 4])))


def test_taking_a_part_decodes_nothing() -> None:
    decoder = Decoder(PIXELS)
    part = some(decoder).at(torch.tensor([4, 1, 0]))
    part = part.with_replaced(torch.tensor([0]), PIXELS[:1], LABELS[:1])
    assert decoder.decoded == 0
    part.batch(torch.tensor([2]))
    assert decoder.decoded == 1


def test_replacing_changes_a_copy_only_where_asked(images: Images) -> None:
    everything = torch.arange(6)
    before = images.batch(everything)
    index = torch.tensor([4, 1])
    new = torch.stack([torch.full((1, 2, 2), 255), torch.full((1, 2, 2), 51)]).to(torch.uint8)
    changed = images.with_replaced(index, new, torch.tensor([0, 2]))
    assert changed.labels.tolist() == [0, 2, 2, 0, 0, 2]
    assert torch.equal(changed.ids, images.ids)
    assert changed.batch(torch.tensor([1, 4])).amax((1, 2, 3)).tolist() == pytest.approx([0.2, 1.0])
    rest = torch.tensor([0, 2, 3, 5])
    assert torch.equal(changed.batch(rest), before[rest])
    assert torch.equal(images.batch(everything), before)
    assert torch.equal(images.labels, LABELS)


def test_replacing_twice_and_taking_a_part_afterwards(images: Images) -> None:
    white, grey = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), torch.full((1, 1, 2, 2), 51, dtype=torch.uint8)
    once = images.with_replaced(torch.tensor([1]), white, torch.tensor([0]))
    twice = once.with_replaced(torch.tensor([3]), grey, torch.tensor([1]))
    part = twice.at(torch.tensor([3, 0, 1]))
    assert part.labels.tolist() == [1, 0, 0]
    assert part.batch(torch.arange(3)).amax((1, 2, 3)).tolist() == pytest.approx([0.2, 30 / 255, 1.0])
    over = twice.with_replaced(torch.tensor([1]), grey, torch.tensor([2]))
    assert over.batch(torch.tensor([1])).amax().item() == pytest.approx(0.2)


def test_moving_keeps_everything(images: Images) -> None:
    moved = images.to(torch.device("cpu"))
    assert torch.equal(moved.batch(torch.arange(6)), images.batch(torch.arange(6)))
    assert (moved.ids.tolist(), moved.labels.tolist()) == (IDS.tolist(), LABELS.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_bytes_survive_as_floats(dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    floats = as_floats(values)
    assert floats.dtype == torch.float32
    assert floats.double().tolist() == pytest.approx([value / 255 for value in range(256)])
    assert torch.equal(values, torch.arange(256, dtype=torch.uint8))
    assert torch.equal(as_bytes(floats.to(dtype)), values)


def test_floats_become_the_nearest_byte() -> None:
    x = torch.tensor([-0.1, 0.0, 0.49 / 255, 0.51 / 255, 254.49 / 255, 254.51 / 255, 1.0, 1.1])
    given = x.clone()
    assert as_bytes(x).tolist() == [0, 0, 0, 1, 254, 255, 255, 255]
    assert torch.equal(x, given)


@pytest.mark.parametrize(
    ("values", "said"), [([0, 1], True), ([0], False), ([1], True), ([0, 2], False), ([0, 255], False)]
)
def test_bytes_that_hold_only_marks_get_a_word(values: list[int], said: bool) -> None:
    pixels = torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).repeat(800, 1, 1, 1)
    problem = only_marks(pixels)
    assert (problem is not None) == said
    assert problem is None or "all pixels are 0 or 1" in problem


@pytest.mark.parametrize(
    ("shape", "first", "axis"),
    [
        ((5, 3, 8, 8), 3, 1),
        ((5, 8, 8, 3), 3, 3),
        ((5, 3, 8, 3), 3, 3),
        ((5, 3, 8, 3), 1, 1),
        ((5, 8, 8, 1), 1, 3),
        ((5, 8, 8), 3, None),
        ((5, 8, 8, 4), 3, None),
    ],
)
def test_the_channels_of_stored_images_are_found(shape: tuple[int, ...], first: int, axis: int | None) -> None:
    assert channel_axis(shape, first=first) == axis
    if axis is not None:
        images = np.arange(np.prod(shape)).reshape(shape)
        found = channels_first(images, axis)
        assert found.shape == (5, shape[axis], *(side for place, side in enumerate(shape) if place not in (0, axis)))
        assert found[2, 0, 1, 1] == images[(2, 0, 1, 1) if axis == 1 else (2, 1, 1, 0)]


def test_grey_images_without_channels_get_one() -> None:
    assert channels_first(np.zeros((5, 8, 9)), None).shape == (5, 1, 8, 9)
