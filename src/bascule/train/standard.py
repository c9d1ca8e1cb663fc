"""Ordinary training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.train import Objective


@component
class Standard(Objective):
    """Cross-entropy on the images as they are: the study's row "None"."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(x), y)
