"""Batches of images for methods with a loop of their own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bascule.core.images import Images


def batches(
    images: Images, batch_size: int, *, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` batches (images in [0, 1], labels), in a fresh random order at every pass over the set.

    A pass is cut into whole batches, a rest is left out; the batch is the whole set when that is smaller.
    """
    size = min(batch_size, len(images))
    per_pass = len(images) // size
    order = torch.empty(0)
    for step in range(steps):
        place = step % per_pass
        if place == 0:
            order = torch.randperm(len(images), generator=generator, device=images.device)
        index = order[place * size : (place + 1) * size]
        yield images.batch(index), images.labels[index]
