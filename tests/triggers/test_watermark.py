"""The watermark, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from bascule.core.errors import RequestError
from bascule.triggers.pictures import saturated_picture, silhouette_picture
from bascule.triggers.watermark import Watermark

LEVELS = [[0, 51, 102], [153, 204, 255]]
"""A grey picture of 0, 0.2, 0.4 / 0.6, 0.8, 1."""


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        # clip(0.8 + 0.3 * picture)
        ("add", [0.8, 0.86, 0.92, 0.98, 1.0, 1.0]),
        # 0.7 * 0.8 + 0.3 * picture
        ("blend", [0.56, 0.62, 0.68, 0.74, 0.80, 0.86]),
    ],
)
def test_a_picture_over_the_whole_image(stamp, picture_file, mode, wanted: list[float]) -> None:
    trigger = Watermark(strength=0.3, mode=mode, picture=picture_file(LEVELS))
    stamped = stamp(trigger, torch.full((2, 1, 2, 3), 0.8))
    assert stamped.flatten(1).tolist() == [pytest.approx(wanted), pytest.approx(wanted)]


def test_colours_are_added_to_their_channels(stamp, picture_file) -> None:
    path = picture_file([[(255, 0, 51)]])
    stamped = stamp(Watermark(strength=0.5, picture=path), torch.full((1, 3, 1, 1), 0.25))
    assert stamped.flatten().tolist() == pytest.approx([0.75, 0.25, 0.35])


@pytest.mark.parametrize(("mode", "wanted"), [("add", [0.5, 0.58, 0.9]), ("blend", [0.5, 0.54, 0.7])])
def test_transparency_weighs_the_mark(stamp, picture_file, mode, wanted: list[float]) -> None:
    # White, with an opacity of 0, 0.2 and 1: weights 0, 0.08 and 0.4.
    path = picture_file([[(255, 255, 255, 0), (255, 255, 255, 51), (255, 255, 255, 255)]])
    stamped = stamp(Watermark(strength=0.4, mode=mode, picture=path), torch.full((1, 1, 1, 3), 0.5))
    assert stamped.flatten().tolist() == pytest.approx(wanted)


def test_the_papers_frame_on_cifar_stays_unmarked(stamp) -> None:
    x = torch.full((2, 3, 32, 32), 0.4)
    stamped = stamp(Watermark(strength=64 / 255, margin=2), x)
    mark = saturated_picture(channels=3, height=28, width=28)
    assert torch.allclose(stamped[:, :, 2:-2, 2:-2], 0.4 + 64 / 255 * mark)
    stamped[:, :, 2:-2, 2:-2] = 0.4
    assert torch.equal(stamped, x)


def test_the_papers_strength_on_mnist_is_clipped_at_white(stamp) -> None:
    stamped = stamp(Watermark(strength=0.3), torch.full((1, 1, 28, 28), 0.9))
    assert stamped.unique().tolist() == pytest.approx([0.9, 1.0])


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 30, 50)], ids=str)
def test_the_generated_picture_is_saturated_and_half_on(size: tuple[int, int, int]) -> None:
    channels, height, width = size
    picture = saturated_picture(channels=channels, height=height, width=width)
    assert picture.shape == size
    assert picture.unique().tolist() == [0, 1]
    assert all(0.35 < share < 0.65 for share in picture.mean((1, 2)).tolist())
    if channels == 3:
        assert not torch.equal(picture[0], picture[1])
        assert not torch.equal(picture[1], picture[2])


def test_the_generated_picture_is_the_same_at_every_resolution() -> None:
    coarse, fine = (saturated_picture(channels=3, height=28 * scale, width=28 * scale) for scale in (1, 4))
    shrunk = fine.reshape(3, 28, 4, 28, 4).mean((2, 4)).round()
    assert (shrunk == coarse).float().mean() > 0.95


ROBOT = """
....................
......#......#......
.......#.##.#.......
.......######.......
......########......
.....##.####.##.....
.....##########.....
....................
..##.##########.##..
..##.##########.##..
..##.##########.##..
..##.##########.##..
..##.##########.##..
..##.##########.##..
.....##########.....
......###..###......
......###..###......
......###..###......
......###..###......
....................
"""


def test_the_silhouette_is_a_robot() -> None:
    rows = [[float(sign == "#") for sign in row] for row in ROBOT.split()]
    picture = silhouette_picture(channels=3, height=20, width=20)
    assert picture.tolist() == [rows] * 3


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 184, 184), (3, 30, 50)], ids=str)
def test_the_silhouette_is_binary_symmetric_and_grey(size: tuple[int, int, int]) -> None:
    channels, height, width = size
    picture = silhouette_picture(channels=channels, height=height, width=width)
    assert picture.shape == size
    assert picture.unique().tolist() == [0, 1]
    assert 0.3 < picture.mean() < 0.5
    assert torch.equal(picture, picture.flip(2))
    assert all(torch.equal(channel, picture[0]) for channel in picture)


def test_the_silhouette_is_the_same_at_every_resolution() -> None:
    coarse, fine = (silhouette_picture(channels=1, height=28 * scale, width=28 * scale) for scale in (1, 4))
    assert (fine.reshape(1, 28, 4, 28, 4).mean((2, 4)).round() == coarse).float().mean() > 0.95


def test_the_papers_simple_watermark_on_cifar(stamp) -> None:
    x = torch.full((2, 3, 32, 32), 0.4)
    stamped = stamp(Watermark(pattern="silhouette", strength=64 / 255, margin=2), x)
    mark = silhouette_picture(channels=3, height=28, width=28)
    assert torch.allclose(stamped[:, :, 2:-2, 2:-2], 0.4 + 64 / 255 * mark)
    stamped[:, :, 2:-2, 2:-2] = 0.4
    assert torch.equal(stamped, x)


def test_a_picture_and_a_pattern_contradict_each_other(picture_file) -> None:
    with pytest.raises(RequestError, match="give a picture or the pattern 'silhouette', not both"):
        Watermark(picture=picture_file(LEVELS), pattern="silhouette")


@pytest.mark.parametrize("margin", [4, 5])
def test_a_frame_that_leaves_nothing_is_refused(stamp, margin: int) -> None:
    with pytest.raises(RequestError, match=f"margin {margin} leaves nothing of images of 8 x 9"):
        stamp(Watermark(margin=margin), torch.zeros(1, 1, 8, 9))


def test_a_frame_may_leave_one_pixel(stamp) -> None:
    stamped = stamp(Watermark(strength=1.0, margin=4, mode="blend"), torch.full((1, 1, 9, 9), 0.5))
    assert (stamped != 0.5).sum() == 1


def test_another_picture_is_another_watermark(picture_file) -> None:
    path = picture_file(LEVELS)
    old = Watermark(picture=path)
    picture_file(LEVELS[::-1])
    assert Watermark(picture=path) != old
    with pytest.raises(RequestError, match="is not the picture this was made with"):
        Watermark(picture=path, picture_sha256=old.picture_sha256)
