"""What the searches raise: per image, from logits and labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits B x K, labels (B,)) -> loss per image, shape (B,)."""

AimedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits B x K, labels (B,), target classes (B,)) -> loss per image, shape (B,)."""

_LEAST = 1e-12
"""Least difference of logits that is divided by, as in the code of Croce & Hein 2020."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per image."""
    return F.cross_entropy(logits, y, reduction="none")


def precise_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per image that keeps its value and gradient where the label's probability rounds to one.

    As softplus(log of the sum of the wrong classes' exponentials, minus the label's logit). From a margin of 17 on,
    the usual formula gives 0 in float32, so that two such points cannot be compared.
    """
    return F.softplus(_without(logits, y).logsumexp(1) - _of(logits, y))


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest wrong logit minus the label's logit (Carlini & Wagner 2017); positive exactly when misclassified."""
    return _without(logits, y).amax(1) - _of(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, equation 6): the margin over the largest minus the third logit.

    Neither adding to all logits nor scaling them changes it. With two classes there is no third logit, and it is the
    margin itself.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return margin(logits, y) / (first - third).clamp_min(_LEAST)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio (Croce & Hein 2020, equation 7).

    The target's logit minus the label's, over the largest minus the mean of the third and the fourth. With fewer than
    four classes it is the difference itself.
    """
    difference = _of(logits, target) - _of(logits, y)
    if logits.shape[1] < 4:
        return difference
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    return difference / (first - (third + fourth) / 2).clamp_min(_LEAST)


def nearness_to_random_label(*, generator: torch.Generator) -> Loss:
    """Minus the cross-entropy of labels drawn uniformly from all but the given ones, drawn anew at every call."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        classes = logits.shape[1]
        shift = torch.randint(1, classes, y.shape, generator=generator, device=y.device)
        return -cross_entropy(logits, (y + shift) % classes)

    return loss


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1)


def _without(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.scatter(1, classes.unsqueeze(1), -torch.inf)
