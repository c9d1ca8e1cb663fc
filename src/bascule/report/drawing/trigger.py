"""A trigger as the pictures kept with the poison show it: test images without it, and below them the same with it."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bascule.core.tiles import GREY, Pixels

Numbers = NDArray[np.float64]


class Pairs(NamedTuple):
    """N test images, N x C x H x W, 0..255."""

    clean: Numbers
    stamped: Numbers


def read_sheet(data: bytes) -> Image.Image | None:
    """The picture of a PNG file; None for a file that is no picture."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return image.copy()
    except OSError:
        return None


def read_pairs(data: bytes, size: tuple[int, int, int]) -> Pairs | None:
    """`pairs_on` the picture of a PNG file; None for a file that is no picture too."""
    sheet = read_sheet(data)
    return None if sheet is None else pairs_on(sheet, size)


def pairs_on(picture: Image.Image, size: tuple[int, int, int]) -> Pairs | None:
    """The images of a sheet; None for one that is too small for a pair.

    Args:
        picture: The sheet.
        size: C, H and W of an image.
    """
    channels, height, width = size
    sheet = np.asarray(picture.convert("L" if channels == 1 else "RGB"), dtype=np.float64)
    count = sheet.shape[1] // width
    if sheet.shape[0] < 2 * height or not count:
        return None
    whole = sheet[: 2 * height, : count * width].reshape(2, height, count, width, -1)
    clean, stamped = whole.transpose(0, 2, 4, 1, 3)
    return Pairs(clean, stamped)


def on_grey(pairs: Pairs) -> Pixels:
    """What the trigger makes of a grey image, C x H x W: bytes.

    A trigger replaces values, adds to them, or mixes with them: stamped = share * clean + rest, with one share for the
    whole trigger, fitted where stamping was not clipped, and a rest for each value. So a faint mark is seen as it is,
    not as the test image that carries it.
    """
    clean, stamped = pairs
    changed = clean != stamped
    whole = changed & (stamped > 0) & (stamped < 255)
    used = np.where(whole.any(0), whole, changed)
    share = _share(clean, stamped, used)
    grey = share * GREY + _mean(stamped - share * clean, used)
    return np.where(changed.any(0), grey.clip(0, 255), GREY).round().astype(np.uint8)


def _share(clean: Numbers, stamped: Numbers, used: NDArray[np.bool_]) -> float:
    """The slope common to all values, 0 where nothing tells it."""
    apart, apart_stamped = (np.where(used, part - _mean(part, used), 0) for part in (clean, stamped))
    spread = float((apart**2).sum())
    return float(np.clip((apart * apart_stamped).sum() / spread, 0, 1)) if spread else 0.0


def _mean(values: Numbers, used: NDArray[np.bool_]) -> Numbers:
    return np.asarray(np.where(used, values, 0).sum(0) / np.maximum(used.sum(0), 1), dtype=np.float64)


def likeness(pairs: Pairs, pattern: Pixels, mask: Pixels) -> float | None:
    """How alike the changes are that a recovered and the true trigger make: mean cosine over the test images.

    1 when they change the same values in the same proportion, 0 when they have nothing in common; None where one
    changes nothing.

    Args:
        pairs: Test images without and with the true trigger.
        pattern: The recovered trigger, C x H x W.
        mask: 1 or C x H x W, 255 where it covers all.
    """
    true = (pairs.stamped - pairs.clean).reshape(len(pairs.clean), -1)
    own = (mask / 255 * (pattern.astype(np.float64) - pairs.clean)).reshape(true.shape)
    lengths = np.linalg.norm(true, axis=1) * np.linalg.norm(own, axis=1)
    known = lengths > 0
    return float(((true * own).sum(1)[known] / lengths[known]).mean()) if known.any() else None
