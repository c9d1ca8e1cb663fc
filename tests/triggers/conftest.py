"""What the tests of triggers share: stamping, plain images, and small picture files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bascule.core import rng
from bascule.core.images import Images
from bascule.triggers.contract import Trigger

Stamp = Callable[..., Tensor]


@pytest.fixture
def images() -> Images:
    """50, 30, 15 and 5 dark 6 x 6 images of four classes, in a random order, with ids in another."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 200, (100, 1, 6, 6), generator=generator, dtype=torch.uint8)
    labels = torch.arange(4).repeat_interleave(torch.tensor([50, 30, 15, 5]))
    labels = labels[torch.randperm(100, generator=generator)]
    ids = 1000 + 3 * torch.randperm(100, generator=generator)
    return Images(pixels=pixels, labels=labels, ids=ids, classes=("a", "b", "c", "d"))


@pytest.fixture
def stamp() -> Stamp:
    """Stamp a batch with the stream of a seed, and see to it that the batch stays as it was."""

    def stamp(trigger: Trigger, x: Tensor, *, seed: int = 0) -> Tensor:
        given = x.clone()
        stamped = trigger.stamp(x, generator=rng.stream(seed, "test"))
        assert torch.equal(x, given), "the input was changed"
        assert stamped.shape == x.shape
        assert stamped.dtype == x.dtype
        return stamped

    return stamp


@pytest.fixture
def picture_file(tmp_path: Path) -> Callable[..., str]:
    """Write a PNG of these pixel values (rows of grey levels, or of (red, green, blue, opacity)) and give its path."""

    def write(rows: list, name: str = "picture.png") -> str:
        path = tmp_path / name
        Image.fromarray(np.array(rows, dtype=np.uint8)).save(path)
        return str(path)

    return write
