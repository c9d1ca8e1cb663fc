"""Backdoor triggers. One file each: images -> stamped images; who is stamped, and with which label, `placement` says.

A trigger works on a batch at once, on the device of its input, and leaves the input unchanged. Triggers whose look or
place is random draw per image from the generator they are given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bascule.core import catalog
from bascule.core.images import Shown


@catalog.contract("poison")
@catalog.component
class Trigger(ABC):
    """A map that stamps images."""

    @abstractmethod
    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Stamped copies of `x`: floats in [0, 1], B x C x H x W.

        Raises:
            RequestError: The trigger does not fit images of this size or number of channels.
        """

    numbered: ClassVar[bool] = False
    """Whether it knows its test images by number, and can stamp no others."""

    @property
    def at_test(self) -> Trigger:
        """What test images are stamped with, where training images show less of it; by default the same."""
        return self

    def check(self, size: tuple[int, int, int]) -> None:
        """Refuse images of this size (channels, height, width) that it cannot stamp."""
        self.stamp(torch.zeros(1, *size), generator=torch.Generator().manual_seed(0))

    def check_test(self, ids: Tensor, labels: Tensor, target: int) -> None:
        """Refuse a test set that it cannot stamp: ids and labels, int64, shape (N,), and the label aimed at (-1:
        there are several)."""
        return  # most stamp any

    def stamp_at(self, images: Shown, index: Tensor, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """`stamp`, of images of a test set at these positions.

        Args:
            images: The test set.
            index: Positions in it, int64.
            x: These images, as they are or perturbed, B x C x H x W.
            generator: For what is drawn.
        """
        return self.stamp(x, generator=generator)
