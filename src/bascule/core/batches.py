"""Batches of images for methods with a loop of their own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bascule.core.ahead import read_batches
from bascule.core.images import Images


def batches(
    images: Images, batch_size: int, *, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` batches (images in [0, 1], labels), in a fresh random order at every pass over the set.

    A pass is cut into whole batches, a rest is left out; the batch is the whole set when that is smaller.
    """
    size = min(batch_size, len(images))
    per_pass = len(images) // size
    for start in range(0, steps, per_pass):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        parts = order.split(size)[: min(per_pass, steps - start)]
        for index, x in read_batches(images, parts):
            yield x, images.labels[index]
