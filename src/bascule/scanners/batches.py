"""Images for a search that runs over several classes at once."""

from __future__ import annotations

import torch
from torch import Tensor

from bascule.core.images import Images

_VALUES_AT_ONCE = 2**20
"""Pixel values per pass: ten classes of 32 CIFAR images, or one class of ImageNet."""


def classes_at_once(images: Images, batch_size: int) -> int:
    """How many classes with `batch_size` images each go through the model together."""
    channels, height, width = images.size
    return max(1, _VALUES_AT_ONCE // (batch_size * channels * height * width))


class Others:
    """Draws images that are not of a class, for many classes at once, without a table per class."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.by_label = images.labels.argsort(stable=True)
        self.count = torch.bincount(images.labels, minlength=len(images.classes))
        self.start = self.count.cumsum(0) - self.count

    def draw(self, labels: Tensor, batch_size: int, *, generator: torch.Generator) -> Tensor:
        """Positions of images of other classes for each label, drawn uniformly with replacement, int64.

        Labels of any shape; B positions for each, in a new last dimension.
        """
        own, start = self.count[labels].unsqueeze(-1), self.start[labels].unsqueeze(-1)
        shape = (*labels.shape, batch_size)
        share = torch.rand(shape, generator=generator, device=labels.device, dtype=torch.float64)
        place = (share * (len(self.images) - own)).long()
        # Images lie sorted by label: those of the class are one block, which is jumped over.
        return self.by_label[place + torch.where(place >= start, own, 0)]
