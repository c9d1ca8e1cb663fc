"""What the certified objectives share: the ramp, the loss of worst-case logits, and which networks they take."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bascule.certifiers.bounds import bound_for_training


def ramp_share(progress: float, *, warmup: float, ramp: float) -> float:
    """0 before the share `warmup` of the training is done, then rising linearly to 1 over the share `ramp`."""
    if progress < warmup:
        return 0.0
    return min(1.0, (progress - warmup) / ramp) if ramp else 1.0


def mixed_loss(logits: Tensor, margins: Tensor, y: Tensor, *, kappa: float) -> Tensor:
    """Cross-entropy of the images times `kappa`, and of their worst-case logits times 1 - `kappa`.

    Args:
        logits: Of the images themselves, B x K.
        margins: Lower bounds of (logit of the label) - (logit of j), B x K. The worst-case logits are their negatives:
            0 for the label, an upper bound of the lead for every other class.
        y: int64 labels, shape (B,).
        kappa: Weight of the images themselves.
    """
    return kappa * F.cross_entropy(logits, y) + (1 - kappa) * F.cross_entropy(-margins, y)


def check_bounds(model: nn.Module, x: Tensor, *, eps: float) -> None:
    """Refuse a network that bounds cannot follow, where the objective comes to use any: with eps 0 it does not.

    Raises:
        RequestError: A layer is unknown to them.
    """
    if eps:
        bound_for_training(model, x, eps=0.0)
