"""Images as tiles of a sheet: pictures, heat in colours, triggers over grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEAT = "inferno"
"""Dark to bright in even steps, for every kind of colour vision and in grey."""
GREY = 128
"""What is shown where a trigger leaves the image as it is."""
_SIDE = 112
"""Larger images are made smaller by a whole factor."""

Pixels = NDArray[np.uint8]


def tile(pixels: Pixels) -> Image.Image:
    """An image of shape C x H x W, made smaller where it is large."""
    return _reduced(full_size(pixels))


def full_size(pixels: Pixels) -> Image.Image:
    """An image of shape C x H x W."""
    visible = pixels if len(pixels) in (1, 3) else pixels.mean(0, keepdims=True).astype(np.uint8)
    image = Image.fromarray(visible[0] if len(visible) == 1 else np.ascontiguousarray(visible.transpose(1, 2, 0)))
    return image.convert("RGBA")


def heat(values: NDArray[Any]) -> Image.Image:
    """Heat of one image, H x W, at least 0, from none to the most in this image; see-through where it is not known."""
    import matplotlib  # heavy, and of heat alone

    known = np.isfinite(values)
    most = float(values[known].max()) if known.any() else 0.0
    shares = np.where(known, values, 0) / (most or 1.0)
    colours = matplotlib.colormaps[HEAT](np.clip(shares, 0, 1), bytes=True)
    colours[~known] = 0
    return _reduced(Image.fromarray(colours))


def over_grey(pattern: Pixels, mask: Pixels) -> Image.Image:
    """A trigger, C x H x W, on a grey image; the mask, 1 or C x H x W, is 255 where it covers all."""
    share = mask.astype(np.float64) / 255
    return tile((GREY * (1 - share) + pattern * share).round().astype(np.uint8))


def shrinkage(height: int, width: int) -> int:
    """The factor by which images of this size are made smaller."""
    return max(1, -(-max(height, width) // _SIDE))


def _reduced(image: Image.Image) -> Image.Image:
    factor = shrinkage(image.height, image.width)
    return image if factor == 1 else image.reduce(factor)


def sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Tiles of one size in rows, with see-through gaps between them."""
    width, height = rows[0][0].size
    gap = max(1, width // 16)
    columns = max(len(row) for row in rows)
    whole = Image.new("RGBA", (columns * (width + gap) - gap, len(rows) * (height + gap) - gap))
    for down, row in enumerate(rows):
        for across, image in enumerate(row):
            whole.paste(image, (across * (width + gap), down * (height + gap)))
    return whole


def cut(image: Image.Image, *, width: int, height: int) -> list[list[Image.Image]]:
    """The tiles of a sheet without gaps."""
    return [
        [image.crop((left, top, left + width, top + height)) for left in range(0, image.width - width + 1, width)]
        for top in range(0, image.height - height + 1, height)
    ]
