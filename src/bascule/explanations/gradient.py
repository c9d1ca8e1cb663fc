"""Gradients of a score with respect to the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.gradients import gradient_of

ScoreName = Literal["loss", "logit"]
"""What is differentiated: the cross-entropy with the label, or the label's logit."""

Score = Callable[[Tensor, Tensor], Tensor]
"""(images B x C x H x W, labels (B,)) -> score per image, shape (B,)."""


def score_of(model: nn.Module, name: ScoreName) -> Score:
    """The model's score of a label."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        # In 64 bits, since the probability of a label the model is sure of is 1 in 32, and its gradient 0.
        return F.cross_entropy(model(x).double(), y, reduction="none")

    def logit(x: Tensor, y: Tensor) -> Tensor:
        return model(x).gather(1, y.unsqueeze(1)).squeeze(1)

    return {"loss": loss, "logit": logit}[name]


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, *, score: ScoreName) -> Tensor:
    """Gradient of each image's score with respect to its pixels, B x C x H x W, signed.

    Uses the model in the mode it is in; the caller freezes parameters.
    """
    x = x.detach().requires_grad_(True)
    return gradient_of(score_of(model, name=score)(x, y).sum(), x)
