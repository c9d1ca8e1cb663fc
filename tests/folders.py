"""Folders of pictures that tests share: how they are written and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def save(path: Path, value: int | np.ndarray, height: int = 2, width: int = 3) -> None:
    """A picture of one grey, or of these pixels; the kind follows from the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8) if isinstance(value, int) else value).save(path)


def two_classes(folder: Path) -> Path:
    """The set `set` in `folder`: two classes, lossless pictures of one grey each, not written in sorted order."""
    place = folder / "set"
    save(place / "train" / "dog" / "b.png", 40)
    save(place / "train" / "dog" / "a.BMP", 30)
    save(place / "train" / "cat" / "10.png", 10)
    save(place / "train" / "cat" / "9.ppm", 20)
    save(place / "val" / "cat" / "x.png", 50)
    save(place / "val" / "dog" / "x.tif", 60)
    return folder


def whole(pixels: Any) -> torch.Tensor:
    """All pictures of a set, streamed or not, N x C x H x W."""
    return pixels[torch.arange(pixels.shape[0])]


def greys(pixels: Any) -> list[int]:
    """The grey of each picture, which must be the same everywhere in it."""
    flat = whole(pixels).flatten(1)
    assert bool((flat == flat[:, :1]).all())
    return flat[:, 0].tolist()
