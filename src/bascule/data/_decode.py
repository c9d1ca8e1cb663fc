"""Compressed pictures (PNG, JPEG, ...) to one uint8 array, on several threads: Pillow frees the GIL while decoding."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from bascule.core.errors import RequestError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats read. Others stay closed: some of Pillow's readers start other programs (PostScript)."""
ENDINGS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""File name endings of these formats, in lower case."""

_MODES = {1: "L", 3: "RGB"}
_RUN = 64
"""Most pictures a thread takes at once: enough to hide the cost of handing them over."""


def picture(content: bytes | Path, *, channels: int, resize: int | None) -> Image.Image:
    """A decoded picture, converted to grey (1 channel, ITU-R 601 luma) or RGB (3), transparency dropped.

    With `resize` the short side becomes `resize` pixels (bilinear with antialiasing) and the centre square is kept; the
    sizes round as in torchvision's `Resize` and `CenterCrop`. Orientation tags are not applied.

    Raises:
        RequestError: Not a picture, damaged, cut short, or with more than 8 bits per channel. The text names no file.
    """
    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as image:
            if image.mode == "F" or image.mode.startswith("I"):
                raise RequestError(f"picture with more than 8 bits per channel (mode {image.mode}); save it with 8 bits")
            image.load()
    except RequestError:
        raise
    except Exception as error:  # Pillow's readers raise whatever their parser trips over
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"not one of {', '.join(FORMATS)}"
        else:
            reason = str(error).strip() or type(error).__name__
        raise RequestError(f"damaged or unreadable picture ({reason}); replace or remove it") from error
    if image.mode != _MODES[channels]:
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert(_MODES[channels])
    return image if resize is None else _centre(image, resize)


def _centre(image: Image.Image, size: int) -> Image.Image:
    """The centre square of the picture once its short side is `size`; only this square is computed."""
    if image.size == (size, size):
        return image
    short = min(image.size)
    starts, ends = [], []
    for length in image.size:
        new = int(size * length / short)
        offset = round((new - size) / 2)
        starts.append(offset * length / new)
        ends.append(min((offset + size) * length / new, length))
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(*starts, *ends))


def allocate(count: int, channels: int, height: int, width: int) -> np.ndarray:
    """Room for the pictures of one set, uint8, count x channels x height x width.

    Raises:
        RequestError: There is not that much memory.
    """
    try:
        return np.empty((count, channels, height, width), np.uint8)
    except MemoryError as error:
        gib = count * channels * height * width / 2**30
        raise RequestError(
            f"{count} pictures of {channels} x {height} x {width} take {gib:.1f} GiB of memory, more than there is. "
            "Set `size` to a smaller number, or give an image folder, which is read batch by batch."
        ) from error


def decode(
    contents: Sequence[bytes | Path],
    out: np.ndarray,
    *,
    name: Callable[[int], str],
    resize: int | None = None,
    remedy: str = "Set `size` to bring all pictures to one size.",
) -> None:
    """Decode every picture into its place in `out` (uint8, len(contents) x 1 or 3 x H x W).

    Args:
        contents: The compressed bytes of each picture, or its file.
        out: Filled in place.
        name: What to call the picture at a position in an error.
        resize: See `picture`.
        remedy: What to do about a picture that is not H x W.

    Raises:
        RequestError: The first picture, in order, that is damaged or not H x W.
    """
    _, channels, height, width = out.shape

    def run(start: int) -> None:
        for i in range(start, min(start + step, len(contents))):
            try:
                image = picture(contents[i], channels=channels, resize=resize)
            except RequestError as error:
                raise RequestError(f"{name(i)}: {error.problem}") from error.__cause__
            if image.size != (width, height):
                raise RequestError(_differs(name(i), image.size, (width, height), remedy))
            pixels = np.asarray(image)
            out[i] = pixels if channels == 1 else pixels.transpose(2, 0, 1)

    workers = _workers()
    step = max(1, min(_RUN, len(contents) // (4 * workers)))
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(run, range(0, len(contents), step)):
            pass


def check_sizes(paths: Sequence[Path], height: int, width: int, *, name: Callable[[int], str], remedy: str) -> None:
    """Check from the headers alone that every picture is height x width.

    Raises:
        RequestError: The first file, in order, that is unreadable or of another size.
    """


def _differs(name: str, found: tuple[int, int], wanted: tuple[int, int], remedy: str) -> str:
    return f"{name}: picture of {found[1]} x {found[0]} pixels where {wanted[1]} x {wanted[0]} is expected. {remedy}"


def _workers() -> int:
    """Threads used: one for each core this process may run on, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)
