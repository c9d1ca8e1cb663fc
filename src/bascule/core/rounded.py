"""Weights in bfloat16, lent to the layers that read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose parameters are read by one product alone, so that they may lie there in bfloat16."""


class RoundedWeights:
    """Copies in bfloat16 of the weights of a model's plain layers, for passes in mixed precision while they are frozen.

    `torch.autocast` would round them in every pass. A weight that a hook computes from other parameters is left to it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places = [
            (part._parameters, name, p)
            for part in model.modules()
            if type(part) in _LAYERS and part._parameters.keys() == {"weight", "bias"}
            for name, p in part._parameters.items()
            if p is not None and p.dtype == torch.float32
        ]
        self._copies: list[Tensor] = []

    @property
    def frozen(self) -> bool:
        """Whether there are such weights, and none of them wants a gradient."""
        return bool(self._places) and not any(p.requires_grad for _, _, p in self._places)

    def forget(self) -> None:
        """The weights are about to change: the next copies are made anew."""
        self._copies = []

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The layers have the copies inside the block."""
        if not self._copies:
            self._copies = [p.detach().bfloat16() for _, _, p in self._places]
        try:
            for (own, name, _), copy in zip(self._places, self._copies, strict=True):
                own[name] = copy  # type: ignore[assignment]  # where a parameter is read, a plain tensor does
            yield
        finally:
            for own, name, p in self._places:
                own[name] = p
