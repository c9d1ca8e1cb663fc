"""Mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.core.rounded import RoundedWeights


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
        self._rounded = None if hasattr(model, "_orig_mod") else RoundedWeights(model)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W in [0, 1] to logits B x K of the type of `x`."""
        rounded = self._rounded
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            if rounded is not None and rounded.frozen:
                logits = self._with_copies(x, rounded)
            else:
                if rounded is not None:
                    rounded.forget()
                logits = self.model(x)
        return logits.to(x.dtype)

    def _with_copies(self, x: Tensor, rounded: RoundedWeights) -> Tensor:
        try:
            with rounded.lent():
                logits: Tensor = self.model(x)
        except RuntimeError:  # of mixed types, where a network switches autocast off for a part of itself
            self._rounded = None
            logits = self.model(x)
        return logits
