"""How firmly a model keeps to a label, as a number that an attacker can push down."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bascule.attacks.losses import margin


def firmness(logits: Tensor, labels: Tensor) -> Tensor:
    """About the lead of the label's logit over the next one where it leads, about zero where it does not, shape (B,).

    The softplus of the lead: probabilities round to one, and then have no gradient, just where a detector looks.

    Args:
        logits: B x K.
        labels: int64, shape (B,).
    """
    return F.softplus(-margin(logits, labels))
