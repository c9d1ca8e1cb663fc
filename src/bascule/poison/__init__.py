"""Backdoor triggers. One file each: images -> stamped images; who is stamped, and with which label, `placement` says.

A trigger works on a batch at once, on the device of its input, and leaves the input unchanged. Triggers whose look or
place is random draw per image from the generator they are given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bascule.core import catalog


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
