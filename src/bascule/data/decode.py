"""Compressed pictures (PNG, JPEG, ...) to one uint8 array, on several threads: Pillow frees the GIL while decoding."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import PIL
from PIL import Image, ImageFile, UnidentifiedImageError

from bascule.core.ahead import threads
from bascule.core.errors import RequestError
from bascule.data._files import GONE

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats read. Others stay closed: some of Pillow's readers start other programs (PostScript)."""
ENDINGS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"))
"""File name endings of these formats, in lower case."""
SET_SIZE = "Set `size` to bring all pictures to one size."
"""What to do about pictures of several sizes."""

WIDE = "pictures with 16 bits per channel are scaled to 8 bits: 65535 becomes 255, and the finer steps are lost"
"""Said once of pictures that hold more than is used."""

PILLOW = PIL.__version__
"""Which pictures can be read is up to it."""

Content = bytes | Path
"""A compressed picture, or its file."""

_MODES = {1: "L", 3: "RGB"}
_RUN = 64
"""Most pictures a thread takes at once: enough to hide the cost of handing them over."""


def picture(content: Content, *, channels: int, resize: int | None = None) -> Image.Image:
    """A decoded picture, converted to grey (1 channel, ITU-R 601 luma) or RGB (3), transparency dropped.

    With `resize` the short side becomes `resize` pixels (bilinear with antialiasing) and the centre square is kept, at
    the place where torchvision's `Resize` and `CenterCrop` have it; values agree with theirs to 1 of 255. Orientation
    tags are not applied.

    16 bits per channel are scaled to 8: 65535 becomes 255.

    Raises:
        RequestError: Not a picture, damaged, cut short, or with more than 16 bits per channel. The text names no file.
    """
    image: Image.Image
    with _opened(content) as file:
        wide = _is_wide(file)
        file.load()
        image = file
    if wide:
        warn_of_width()
    if image.mode.startswith("I"):
        image = Image.fromarray(np.rint(np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.mode != _MODES[channels]:
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert(_MODES[channels])
    return image if resize is None else _centre(image, resize)


@contextmanager
def _opened(content: Content | IO[bytes]) -> Iterator[ImageFile.ImageFile]:
    """The picture with its header read."""
    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as image:
            if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                raise RequestError(
                    f"picture with more than 16 bits per channel (mode {image.mode}); save it with 8 bits"
                )
            yield image
    except RequestError:
        raise
    except UnidentifiedImageError as error:
        raise RequestError(f"damaged, or not of a known format ({', '.join(FORMATS)}); replace or remove it") from error
    except FileNotFoundError as error:
        raise RequestError(GONE) from error
    except Exception as error:  # Pillow's readers raise whatever their parser trips over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(f"damaged or unreadable picture ({reason}); replace or remove it") from error


def _is_wide(image: ImageFile.ImageFile) -> bool:
    """Whether it has 16 bits per channel, of which Pillow keeps the upper 8 in colours: the same as scaling them."""
    return image.mode.startswith("I") or any(";16" in str(part[3]) for part in image.tile)


def warn_of_width() -> None:
    """Say of 16 bits per channel that they are scaled."""
    warnings.warn(WIDE, stacklevel=1)  # at one place, so that Python says it once


def _centre(image: Image.Image, size: int) -> Image.Image:
    """The centre square once the short side is `size`; only this square is computed, however long the picture is."""
    if image.size == (size, size):
        return image
    starts, ends = [], []
    for length in image.size:
        new = int(size * length / min(image.size))
        offset = round((new - size) / 2)
        starts.append(offset * length / new)
        ends.append(min((offset + size) * length / new, length))
    box = (starts[0], starts[1], ends[0], ends[1])
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def allocate(count: int, channels: int, height: int, width: int) -> np.ndarray:
    """Room for the pictures of one set, uint8, count x channels x height x width.

    Raises:
        RequestError: There is not that much memory.
    """
    try:
        return np.empty((count, channels, height, width), np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more bytes than an address can count
        gib = count * channels * height * width / 2**30
        raise RequestError(
            f"{count} pictures of {channels} x {height} x {width} take {gib:.1f} GiB of memory, more than there is. "
            "Use smaller pictures, or a folder, shards or parquet, which are read batch by batch."
        ) from error


def decode(
    contents: Sequence[Content],
    out: np.ndarray,
    *,
    name: Callable[[int], str],
    resize: int | None = None,
    remedy: str = SET_SIZE,
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

    def one(i: int) -> None:
        image = picture(contents[i], channels=channels, resize=resize)
        _check(image, height, width, remedy)
        pixels = np.asarray(image)
        out[i] = pixels if channels == 1 else pixels.transpose(2, 0, 1)

    _each(len(contents), one, name)


def check_headers(
    contents: Sequence[Content | IO[bytes]], size: tuple[int, int] | None, *, name: Callable[[int], str]
) -> bool:
    """Read the header of every picture; whether one has 16 bits per channel.

    `contents` and `name` are as for `decode`, or open files.

    Raises:
        RequestError: The first, in order, that is no picture, or not of this height and width where one is given.
    """

    def one(i: int) -> None:
        with _opened(contents[i]) as image:
            if size is not None:
                _check(image, *size, SET_SIZE)
            if _is_wide(image):
                wide.append(i)

    wide: list[int] = []
    _each(len(contents), one, name)
    return bool(wide)


def _check(image: Image.Image, height: int, width: int, remedy: str) -> None:
    if image.size != (width, height):
        given = f"picture of {image.height} x {image.width} pixels (height x width)"
        raise RequestError(f"{given} where {height} x {width} is expected. {remedy}")


def _each(count: int, one: Callable[[int], None], name: Callable[[int], str]) -> None:
    """Call `one` for each position on several threads; the first error, in order of position, is the one raised.

    The threads live for one call, so that nothing is left running and a forked process is safe.
    """
    workers = threads()
    step = max(1, min(_RUN, count // (4 * workers)))

    def run(start: int) -> None:
        for i in range(start, min(start + step, count)):
            try:
                one(i)
            except RequestError as error:
                raise RequestError(f"{name(i)}: {error.problem}") from error.__cause__

    if workers == 1:
        for start in range(0, count, step):
            run(start)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(run, range(0, count, step)):
            pass
