"""The sticker, pixel by pixel."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.triggers.sticker import Sticker

CHECKER = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
FOUR_CORNERS = [(1, 2, 1, 2), (1, 2, 4, 5), (3, 4, 1, 2), (3, 4, 4, 5)]
"""Of a 2 x 2 patch with margin 1 on 6 x 7 pixels."""
COVER_ALL = 40 * 12
"""Images enough that a uniform draw of 12 places leaves none out (chance 12 * (11/12)^480 < 1e-17)."""


def places(stamped: Tensor) -> list[tuple[int, int, int, int]]:
    """Top, bottom, left and right of what is not zero in each image."""
    found = []
    for image in stamped.amax(1):
        rows, columns = image.nonzero(as_tuple=True)
        found.append((int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())))
    return found


def test_the_papers_white_square_on_mnist(stamp) -> None:
    wanted = torch.full((2, 1, 28, 28), 0.25)
    wanted[:, :, 25:28, 25:28] = 1
    assert torch.equal(stamp(Sticker(), torch.full((2, 1, 28, 28), 0.25)), wanted)


@pytest.mark.parametrize(
    ("size", "pattern"),
    [(3, CHECKER), (2, torch.eye(2)), (1, torch.ones(1, 1))],
    ids=["3x3", "2x2", "1x1"],
)
def test_the_papers_checkerboards_on_cifar(stamp, size: int, pattern: Tensor) -> None:
    wanted = torch.full((2, 3, 32, 32), 0.4)
    wanted[:, :, 30 - size : 30, 30 - size : 30] = pattern
    trigger = Sticker(size=size, pattern="checker", margin=2)
    assert torch.equal(stamp(trigger, torch.full((2, 3, 32, 32), 0.4)), wanted)


@pytest.mark.parametrize(
    ("size", "pattern"),
    [
        (4, [[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]),
        (3, [[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]),
        (1, [[1.0]]),
    ],
    ids=["4x4", "3x3", "1x1"],
)
def test_a_coarse_checkerboard_has_blocks_of_two_pixels(stamp, size: int, pattern: list[list[float]]) -> None:
    wanted = torch.full((2, 3, 32, 32), 0.4)
    wanted[:, :, 30 - size : 30, 30 - size : 30] = torch.tensor(pattern)
    trigger = Sticker(size=size, pattern="coarse-checker", margin=2)
    assert torch.equal(stamp(trigger, torch.full((2, 3, 32, 32), 0.4)), wanted)


def test_a_coarse_checkerboard_in_colour(stamp) -> None:
    stamped = stamp(Sticker(size=4, pattern="coarse-checker", color=(1.0, 0.5, 0.25)), torch.full((1, 3, 8, 8), 0.4))
    assert stamped[0, :, 4, 5].tolist() == stamped[0, :, 7, 7].tolist() == [1.0, 0.5, 0.25]
    assert stamped[0, :, 4, 6].tolist() == stamped[0, :, 7, 4].tolist() == [0.0, 0.0, 0.0]


def test_the_papers_four_corners(stamp) -> None:
    x = torch.zeros(1, 3, 32, 32)
    corners = ("bottom-right", "top-left", "bottom-left", "top-right")
    assert [places(stamp(Sticker(position=corner), x))[0] for corner in corners] == [
        (29, 31, 29, 31),
        (0, 2, 0, 2),
        (29, 31, 0, 2),
        (0, 2, 29, 31),
    ]


@pytest.mark.parametrize(
    ("position", "margin", "wanted"),
    [
        ("top-left", 1, (1, 2, 1, 2)),
        ("top-right", 1, (1, 2, 4, 5)),
        ("bottom-left", 1, (3, 4, 1, 2)),
        ("bottom-right", 1, (3, 4, 4, 5)),
        ("bottom-right", 0, (4, 5, 5, 6)),
        ("center", 0, (2, 3, 2, 3)),
        ("center", 1, (2, 3, 2, 3)),
        ((0, 3), 0, (0, 1, 3, 4)),
        ((4, 5), 2, (4, 5, 5, 6)),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_a_two_by_two_patch_on_six_by_seven_pixels(stamp, position: Any, margin: int, wanted: tuple) -> None:
    x = torch.zeros(2, 1, 6, 7)
    assert places(stamp(Sticker(size=2, position=position, margin=margin), x)) == [wanted, wanted]


@pytest.mark.parametrize(
    ("side", "size", "first"), [(5, 3, 1), (6, 2, 2), (32, 3, 14), (5, 2, 1), (28, 3, 12)], ids=str
)
def test_center_rounds_up_and_left(stamp, side: int, size: int, first: int) -> None:
    last = first + size - 1
    found = stamp(Sticker(size=size, position="center"), torch.zeros(1, 1, side, side))
    assert places(found) == [(first, last, first, last)]


def test_a_coloured_patch(stamp) -> None:
    x = torch.full((1, 3, 4, 4), 0.25)
    stamped = stamp(Sticker(size=2, color=(1, 0.5, 0), position="top-left"), x)
    assert stamped[0, :, :2, :2].flatten(1).tolist() == [[1.0] * 4, [0.5] * 4, [0.0] * 4]
    assert stamped[0, :, 2:].unique().tolist() == [0.25]
    checker = stamp(Sticker(size=2, color=(1, 0.5, 0), pattern="checker", position="top-left"), x)
    assert checker[0, :, :2, :2].flatten(1).tolist() == [[1, 0, 0, 1], [0.5, 0, 0, 0.5], [0, 0, 0, 0]]
    assert stamp(Sticker(size=2, color=0.75), x)[0, :, 2:, 2:].unique().tolist() == [0.75]


@pytest.mark.parametrize(("margin", "shape"), [(0, (4, 5)), (2, (8, 9))], ids=["no-margin", "margin"])
def test_random_places_reach_everything_inside_the_margin(stamp, margin: int, shape: tuple[int, int]) -> None:
    found = places(stamp(Sticker(size=2, position="random", margin=margin), torch.zeros(COVER_ALL, 1, *shape)))
    assert {(top, left) for top, _, left, _ in found} == {
        (top + margin, left + margin) for top in range(3) for left in range(4)
    }
    assert all((bottom - top, right - left) == (1, 1) for top, bottom, left, right in found)


def test_random_corners_use_all_four_equally(stamp) -> None:
    found = places(stamp(Sticker(size=2, position="random-corner", margin=1), torch.zeros(400, 1, 6, 7)))
    assert {place: found.count(place) for place in found} == dict.fromkeys(FOUR_CORNERS, 100)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_uneven_groups_of_corners_differ_by_one_and_no_corner_is_preferred(stamp, count: int) -> None:
    trigger, x = Sticker(size=2, position="random-corner", margin=1), torch.zeros(count, 1, 6, 7)
    draws = [places(stamp(trigger, x, seed=seed)) for seed in range(200)]
    for found in draws:
        counts = [found.count(corner) for corner in FOUR_CORNERS]
        assert sum(counts) == count
        assert max(counts) - min(counts) <= 1
    for image in range(count):
        counts = [sum(found[image] == corner for found in draws) for corner in FOUR_CORNERS]
        assert all(20 < number < 80 for number in counts), image  # nearly five standard deviations around 50


@pytest.mark.parametrize("position", ["random", "random-corner"])
def test_random_places_follow_the_generator(stamp, position: Any) -> None:
    trigger, x = Sticker(size=1, position=position), torch.zeros(50, 1, 8, 8)
    assert torch.equal(stamp(trigger, x, seed=1), stamp(trigger, x, seed=1))
    assert not torch.equal(stamp(trigger, x, seed=1), stamp(trigger, x, seed=2))


def test_the_layout_of_the_input_does_not_matter(stamp) -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = stamp(Sticker(), x)
    assert torch.equal(stamp(Sticker(), x.contiguous(memory_format=torch.channels_last)), wanted)
    assert stamp(Sticker(), torch.zeros(1, 1, 8, 8).expand(3, 1, 8, 8)).sum() == 27


# --- pictures --------------------------------------------------------------------------------------------------------

FOUR = [[(255, 0, 0, 255), (0, 255, 0, 0)], [(0, 0, 255, 51), (255, 255, 255, 255)]]
"""Opaque red, invisible green; a fifth of blue, opaque white."""


def test_a_picture_covers_as_much_as_it_is_opaque(stamp, picture_file) -> None:
    trigger = Sticker(size=2, position="top-left", picture=picture_file(FOUR))
    stamped = stamp(trigger, torch.full((1, 3, 4, 4), 0.5))
    red, green, blue = stamped[0, :, :2, :2].flatten(1).tolist()
    assert red == pytest.approx([1, 0.5, 0.4, 1])
    assert green == pytest.approx([0, 0.5, 0.4, 1])
    assert blue == pytest.approx([0, 0.5, 0.6, 1])
    assert stamped[0, :, 2:].unique().tolist() == [0.5]


def test_a_picture_turns_grey_on_grey_images(stamp, picture_file) -> None:
    trigger = Sticker(size=2, position="top-left", picture=picture_file(FOUR))
    stamped = stamp(trigger, torch.full((1, 1, 4, 4), 0.5))
    # ITU-R 601: red weighs 0.299 and blue 0.114, in steps of 1/255.
    assert stamped[0, 0, :2, :2].flatten().tolist() == pytest.approx([0.299, 0.5, 0.4 + 0.2 * 0.114, 1], abs=1 / 255)


def test_a_picture_is_scaled_to_the_patch(stamp, picture_file) -> None:
    rows = [[51] * 4 + [255] * 4] * 8
    stamped = stamp(Sticker(size=2, position="top-left", picture=picture_file(rows)), torch.zeros(1, 1, 4, 4))
    left, right = stamped[0, 0, :2, 0], stamped[0, 0, :2, 1]
    assert left.tolist() == pytest.approx([0.2] * 2, abs=0.1)
    assert right.tolist() == pytest.approx([1.0] * 2, abs=0.1)


def test_another_picture_under_the_same_name_is_another_trigger(picture_file) -> None:
    path = picture_file([[0, 255], [255, 0]])
    old = Sticker(picture=path)
    assert len(old.picture_sha256 or "") == 64
    assert Sticker(picture=path) == old == Sticker(picture=path, picture_sha256=old.picture_sha256)
    picture_file([[255, 0], [255, 0]])
    assert Sticker(picture=path) != old
    with pytest.raises(RequestError, match="is not the picture this was made with") as caught:
        dataclasses.replace(old, size=4)
    assert caught.value.place == ("picture",)


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for path in (tmp_path / "text.png", tmp_path / "nowhere.png", tmp_path):
        with pytest.raises(RequestError, match="cannot read the picture") as caught:
            Sticker(picture=str(path))
        assert caught.value.place == ("picture",)
        assert str(path) in caught.value.problem


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (Sticker(size=9), "a 9 x 9 block with margin 0 does not fit images of 8 x 7"),
        (Sticker(size=8), "a 8 x 8 block with margin 0 does not fit images of 8 x 7"),
        (Sticker(size=4, margin=2), "a 4 x 4 block with margin 2 does not fit images of 8 x 7"),
        (Sticker(size=4, margin=2, position="random"), "a 4 x 4 block with margin 2 does not fit"),
        (Sticker(position=(6, 0)), r"a 3 x 3 block at \(6, 0\) does not fit images of 8 x 7"),
        (Sticker(position=(0, 5)), r"a 3 x 3 block at \(0, 5\) does not fit images of 8 x 7"),
        (Sticker(color=(1, 0, 0)), r"color \(1\.0, 0\.0, 0\.0\) has 3 channels, the images have 1"),
    ],
    ids=["size", "width", "margin", "random", "row", "column", "color"],
)
def test_what_does_not_fit_is_refused(stamp, trigger: Sticker, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        stamp(trigger, torch.zeros(1, 1, 8, 7))


def test_a_margin_does_not_concern_a_given_place(stamp) -> None:
    x = torch.zeros(1, 1, 8, 7)
    wanted = stamp(Sticker(size=6, position=(2, 1)), x)
    assert torch.equal(stamp(Sticker(size=6, position=(2, 1), margin=3), x), wanted)


def test_what_just_fits_is_taken(stamp) -> None:
    x = torch.zeros(1, 1, 8, 7)
    for trigger in (
        Sticker(size=7),
        Sticker(size=3, margin=2),
        Sticker(position=(5, 4)),
        Sticker(size=7, position=(1, 0)),
    ):
        assert stamp(trigger, x).sum() == trigger.size**2
