"""Single pictures: what is accepted, how it is converted, what is refused."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from bascule.core.errors import RequestError
from bascule.data.decode import allocate, decode, picture


def encode(pixels: np.ndarray, kind: str = "PNG", **settings: object) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def values(content: bytes, channels: int, resize: int | None = None) -> np.ndarray:
    return np.asarray(picture(content, channels=channels, resize=resize))


@pytest.mark.parametrize("kind", ["BMP", "PNG", "PPM", "TIFF"])
def test_lossless_formats_come_back_exactly(kind: str) -> None:
    pixels = noise(5, 7)
    assert np.array_equal(values(encode(pixels, kind), 3), pixels)


def test_webp_comes_back_exactly_when_lossless() -> None:
    pixels = noise(5, 7)
    assert np.array_equal(values(encode(pixels, "WEBP", lossless=True), 3), pixels)


def test_colour_becomes_grey_by_its_luma() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    # 0.299, 0.587 and 0.114 times 255, rounded
    assert values(encode(primaries), 1).tolist() == [[76, 150, 29, 255]]


def test_grey_becomes_three_equal_channels() -> None:
    assert values(encode(np.array([[3, 200]], np.uint8)), 3).tolist() == [[[3, 3, 3], [200, 200, 200]]]


def test_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    file = BytesIO()
    image.save(file, "PNG", transparency=bytes([10, 200]))
    assert values(file.getvalue(), 3).tolist() == [[[255, 0, 0], [0, 255, 0]]]
    assert values(file.getvalue(), 1).tolist() == [[76, 150]]


def test_transparency_is_dropped() -> None:
    assert values(encode(np.array([[[9, 8, 7, 0]]], np.uint8)), 3).tolist() == [[[9, 8, 7]]]


def test_halving_is_antialiased() -> None:
    # Each output pixel weighs the source pixels 3 : 3 : 1 from its own side; the columns are 0, 0, 70, 70.
    pixels = np.tile(np.array([0, 0, 70, 70], np.uint8), (4, 1))
    assert values(encode(pixels), 1, resize=2).tolist() == [[10, 60], [10, 60]]


def test_a_long_picture_keeps_its_centre() -> None:
    # 4 x 8 becomes 2 x 4, whose columns 1 and 2 are kept. Each weighs four columns 1 : 3 : 3 : 1.
    pixels = np.tile(np.arange(8, dtype=np.uint8) * 8, (4, 1))
    assert values(encode(pixels), 1, resize=2).tolist() == [[20, 36], [20, 36]]


@pytest.mark.parametrize(("height", "width", "size"), [(37, 50, 16), (200, 90, 64), (30, 45, 41), (64, 64, 64)])
def test_resizing_agrees_with_resize_then_crop(height: int, width: int, size: int) -> None:
    pixels = noise(height, width)
    scale = size / min(height, width)
    high, wide = int(height * scale + 1e-9), int(width * scale + 1e-9)
    top, left = round((high - size) / 2), round((wide - size) / 2)
    whole = Image.fromarray(pixels).resize((wide, high), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + size, top + size))).astype(int)
    assert np.abs(values(encode(pixels), 3, resize=size) - expected).max() <= 1


def test_a_very_long_picture_needs_no_more_memory_than_its_centre() -> None:
    # Resized as a whole it would take 13 GB.
    assert values(encode(np.full((1, 60_000), 9, np.uint8)), 1, resize=224).shape == (224, 224)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_refuses_a_picture_cut_short(kind: str, share: float) -> None:
    content = encode(noise(40, 40), kind)
    with pytest.raises(RequestError, match="damaged"):
        picture(content[: int(len(content) * share)], channels=3)


def test_a_jpeg_without_its_last_byte_is_cut_short() -> None:
    with pytest.raises(RequestError, match=r"damaged or unreadable picture .*truncated"):
        picture(encode(noise(40, 40), "JPEG")[:-1], channels=3)


def test_pillow_is_left_strict() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("content", [b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"])
def test_refuses_what_is_no_picture(content: bytes) -> None:
    with pytest.raises(RequestError, match=r"damaged, or not of a known format .*; replace or remove it"):
        picture(content, channels=3)


def test_sixteen_bits_are_scaled_with_a_word() -> None:
    """Of grey and of colours, to the nearest step and to the step below it, and never cut to the lower bits."""
    grey = np.array([[0, 128, 129, 256, 1000, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF", "PPM"):
        with pytest.warns(UserWarning, match="16 bits per channel are scaled to 8 bits"):
            image = picture(encode(grey, kind), channels=1)
        assert np.asarray(image).tolist() == [[0, 0, 1, 1, 4, 128, 255]]
    colour = b"P6 2 1 65535\n" + np.array([[0, 256, 32896], [65535, 1000, 1]], ">u2").tobytes()
    with pytest.warns(UserWarning, match="16 bits per channel are scaled to 8 bits"):
        image = picture(_wide_png(), channels=3)
    assert np.asarray(image).tolist() == [[[0, 1, 128], [255, 3, 0]]]
    assert np.asarray(picture(colour, channels=3)).tolist() == [[[0, 1, 128], [255, 4, 0]]]


def _wide_png() -> bytes:
    """Two colours of 16 bits per channel, which Pillow itself cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = b"\0" + np.array([0, 256, 32896, 65535, 1000, 1], ">u2").tobytes()
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


def test_refuses_more_than_sixteen_bits() -> None:
    for values_ in (np.array([[0.5]], np.float32), np.array([[70_000]], np.int32)):
        with pytest.raises(RequestError, match=r"more than 16 bits per channel .*save it with 8 bits"):
            picture(encode(values_, "TIFF"), channels=1)


def test_the_first_bad_picture_is_named_whatever_thread_meets_it() -> None:
    contents = [encode(noise(8, 8, seed)) for seed in range(300)]
    contents[270] = contents[211] = b"hello"
    with pytest.raises(RequestError, match=r"^number 211: damaged, or not"):
        decode(contents, allocate(300, 3, 8, 8), name=lambda i: f"number {i}")


def test_every_picture_lands_in_its_place() -> None:
    contents = [encode(np.full((2, 3), i, np.uint8)) for i in range(200)]
    out = allocate(200, 1, 2, 3)
    decode(contents, out, name=str)
    assert np.array_equal(out, np.arange(200, dtype=np.uint8).repeat(6).reshape(200, 1, 2, 3))


@pytest.mark.skipif(os.name != "posix", reason="other systems promise any amount of memory")
def test_a_set_larger_than_memory_is_refused() -> None:
    with pytest.raises(RequestError, match="GiB of memory, more than there is"):
        allocate(10**12, 3, 1000, 1000)
