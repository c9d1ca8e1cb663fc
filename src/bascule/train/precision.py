"""Mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""What autocast computes in bfloat16 from its own weights, just as they are; not what is derived from these."""


class Mixed(nn.Module):
    """A network whose forward passes multiply in bfloat16 where that is safe; what it answers is float32 again.

    Only the passes: whatever an objective computes from logits (losses, divergences, projections) stays in float32, on
    the CPU as on CUDA. bfloat16 has the range of float32, so the loss needs no scaling. Source: Micikevicius et al.
    2018; what is safe is what `torch.autocast` takes for safe.

    The passes of a search share one copy of the weights in bfloat16, which autocast makes anew in each: they are frozen
    then, and the next pass for the parameters, which precedes any change of them, throws it away.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # Compiled code looks at the identity of what it was compiled for.
        parts = [] if hasattr(model, "_orig_mod") else [part for part in model.modules() if type(part) in _LAYERS]
        self._layers = [
            (part._parameters, key, value)
            for part in parts
            for key, value in part._parameters.items()
            if value is not None and value.dtype == torch.float32
        ]
        self._copies: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W in [0, 1] to logits B x K of the type of `x`."""
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            if self._layers and not any(value.requires_grad for _, _, value in self._layers):
                logits = self._with_copies(x)
            else:
                self._copies = []
                logits = self.model(x)
        return logits.to(x.dtype)

    def _with_copies(self, x: Tensor) -> Tensor:
        try:
            with self._lent():
                logits: Tensor = self.model(x)
        except RuntimeError:  # of mixed types, where a network switches autocast off for a part of itself
            self._layers, self._copies = [], []
            logits = self.model(x)
        return logits

    @contextmanager
    def _lent(self) -> Iterator[None]:
        """The layers have their weights in bfloat16 inside the block."""
        if not self._copies:
            self._copies = [value.detach().to(torch.bfloat16) for _, _, value in self._layers]
        try:
            for (place, key, _), copy in zip(self._layers, self._copies, strict=True):
                place[key] = copy  # type: ignore[assignment]
            yield
        finally:
            for place, key, value in self._layers:
                place[key] = value
