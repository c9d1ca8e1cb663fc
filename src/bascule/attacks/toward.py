"""Attacks towards a class, made from attacks away from one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Toward(nn.Module):
    """`model` seen as a choice between its target (class 1) and the strongest other class (class 0).

    An attack that moves images away from class 0 of this view moves them towards `target` of the model: its
    misclassifications are the images that the model takes for the target.
    """

    def __init__(self, model: nn.Module, target: int) -> None:
        super().__init__()
        self.model, self.target = model, target

    def forward(self, x: Tensor) -> Tensor:
        """Logits, B x 2."""
        logits = self.model(x)
        others = torch.cat([logits[:, : self.target], logits[:, self.target + 1 :]], dim=1)
        return torch.stack([others.amax(1), logits[:, self.target]], dim=1)
