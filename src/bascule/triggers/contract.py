"""Backdoor triggers. One file each: images -> stamped images; who is stamped, and with which label, `placement` says.

A trigger works on a batch at once, on the device of its input, and leaves the input unchanged. Triggers whose look or
place is random draw per image from the generator they are given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from bascule.core import catalog, rng
from bascule.core.apart import apart
from bascule.core.errors import RequestError
from bascule.core.given import Data, unlabelled
from bascule.core.images import Images, Shown

Found = Mapping[str, Tensor]
"""What a search found, by name; floats and integers of any shape."""


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

    @property
    def on_covers(self) -> Trigger:
        """What covers are stamped with, where the poison names nothing else; by default the same."""
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

    def __call__(self, x: Data, *, seed: int = 0) -> Tensor:
        """Stamped copies of images, as this trigger is in training: `bascule.triggers.Sticker()(x)`.

        Args:
            x: N x C x H x W, floats in [0, 1] or uint8 (0 to 255); or a data set or loader.
            seed: Of what it draws.

        Returns:
            Floats in [0, 1], N x C x H x W, not rounded to bytes, on the device of `x`.

        Raises:
            RequestError: A wrong type, shape or range, or it does not fit images of this size.
        """
        with apart(seed):
            given = unlabelled(x)
            with torch.no_grad():
                return self.stamp(given, generator=rng.stream(seed, "trigger", device=given.device))


@catalog.component
class Searched(Trigger):
    """A trigger that is not known before it is searched for, on a proxy: a network trained on the unpoisoned data.

    The search is a question to the proxy, whose answer is recorded; planting and test images read it there. What the
    settings describe is the search. `found` gives the trigger itself, for training images; its `at_test` is what test
    images show. One whose test images show something that needs no search overrides `at_test`.
    """

    @abstractmethod
    def search(
        self, proxy: nn.Module, images: Images, chosen: Tensor, target: int, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What `found` needs, on any device.

        Args:
            proxy: From [0, 1] images to logits: a copy, in eval mode, every floating parameter wanting a gradient; may
                be changed and trained.
            images: The whole unpoisoned training set with its true labels, on the proxy's device.
            chosen: Positions of the images that will be stamped, int64, ascending, on the device of the images.
            target: The label that the trigger aims at.
            generator: On the device of the images.

        Raises:
            RequestError: The search does not fit this network or these images.
        """

    @abstractmethod
    def found(self, what: Found) -> Trigger:
        """The trigger itself, as training images show it, from what `search` returned."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        raise RequestError(
            "this trigger is searched for on a network trained on the unpoisoned data: a study plants it, and it is "
            "known to that study's models only"
        )

    def check(self, size: tuple[int, int, int]) -> None:
        """Any size, unless it says otherwise."""
