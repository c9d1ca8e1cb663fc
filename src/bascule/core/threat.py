"""What a threat model is: which images an attacker may make of an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class Threat(ABC):
    """A set of images in [0, 1] around each image, the image itself among them."""

    @property
    @abstractmethod
    def words(self) -> str:
        """For people: `linf, eps 0.3`; `turned by up to 30 degrees`."""

    def check_size(self, size: Sequence[int]) -> None:  # noqa: B027  (most take all sizes)
        """Refuse images of this size (channels, height, width), of which it would leave nothing; by default none.

        Raises:
            RequestError: Its place is the setting that is too large.
        """

    @abstractmethod
    def realise(self, proposal: Tensor, origin: Tensor) -> Tensor:
        """The images that an attacker's proposal stands for, in the threat model and in [0, 1] whatever it is.

        What of it is not a number stands for no change.

        Args:
            proposal: Of a threat model that is a set of images around the origin (a ball, a window): images, B x C x H
                x W, which are brought into it. Of one that is a set of changes (motions): their parameters, B x P,
                which are brought into their limits and applied.
            origin: In [0, 1], B x C x H x W.
        """
