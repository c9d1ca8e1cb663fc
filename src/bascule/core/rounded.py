"""Weights in bfloat16, lent to the layers that read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bascule.core.folded import FoldedNorms

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose parameters are read by one product alone, so that they may lie there in bfloat16."""


class RoundedWeights:
    """Copies in bfloat16 of the weights of a model's plain layers, for passes in mixed precision while they are frozen.

    `torch.autocast` would round them in every pass. A weight that a hook computes from other parameters is left to it.

    Args:
        model: The model.
        folded: Norms that its passes leave out; the convolutions before them get the weights that stand in for both.
    """

    def __init__(self, model: nn.Module, folded: FoldedNorms | None = None) -> None:
        self._layers = [
            part
            for part in model.modules()
            if type(part) in _LAYERS and part._parameters.keys() == {"weight", "bias"} and _in_float32(part)
        ]
        self._folded = folded
        self._copies: list[dict[str, Tensor]] = []

    @property
    def frozen(self) -> bool:
        """Whether there are such weights, and none of them wants a gradient."""
        return bool(self._layers) and not any(p.requires_grad for part in self._layers for p in _in_float32(part))

    def forget(self) -> None:
        """The weights are about to change: the next copies are made anew."""
        self._copies = []

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The layers have the copies inside the block."""
        if not self._copies:
            self._copies = [self._copied(part) for part in self._layers]
        before = [dict(part._parameters) for part in self._layers]
        try:
            for part, copies in zip(self._layers, self._copies, strict=True):
                part._parameters.update(copies)  # type: ignore[arg-type]  # where a parameter is read, any tensor does
            yield
        finally:
            for part, own in zip(self._layers, before, strict=True):
                part._parameters.update(own)

    def _copied(self, part: nn.Module) -> dict[str, Tensor]:
        folded = {} if self._folded is None or part not in self._folded.behind else self._folded.parameters(part)
        values = (folded or part._parameters).items()
        return {name: p.detach().bfloat16() for name, p in values if p is not None and p.dtype == torch.float32}


def _in_float32(part: nn.Module) -> list[nn.Parameter]:
    return [p for p in part._parameters.values() if p is not None and p.dtype == torch.float32]
