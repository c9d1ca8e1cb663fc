"""Mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mixed(nn.Module):
    """A network whose forward passes multiply in bfloat16 where that is safe; what it answers is float32 again.

    Only the passes: whatever an objective computes from logits (losses, divergences, projections) stays in float32, on
    the CPU as on CUDA. bfloat16 has the range of float32, so the loss needs no scaling. Source: Micikevicius et al.
    2018; what is safe is what `torch.autocast` takes for safe.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W in [0, 1] to logits B x K of the type of `x`."""
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            logits = self.model(x)
        return logits.to(x.dtype)
