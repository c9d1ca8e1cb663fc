"""Trigger attention: how much of a heat map lies on what a trigger changed."""

from __future__ import annotations

import torch
from torch import Tensor


def changed_pixels(x: Tensor, stamped: Tensor) -> Tensor:
    """Where a trigger changed the images in any channel: bool, B x H x W."""
    return (x != stamped).any(1)


def trigger_attention(heat: Tensor, changed: Tensor) -> Tensor:
    """Share of each image's heat that lies on the pixels the trigger changed: float64 in [0, 1], shape (B,).

    NaN, not to be counted, where there is no heat at all or where the trigger changed nothing. To be read beside two
    others: `changed_share`, what evenly spread heat would give (nearly 1 for a trigger that changes nearly every pixel,
    such as a warp), and the attention of a model trained without the trigger, since a trigger may sit where any model
    looks: on 8 x 8 digits an adversarially trained model has 0.2 of its heat on a bright corner it never saw in
    training.

    Args:
        heat: Floats >= 0, B x H x W.
        changed: bool, B x H x W.
    """
    heat, changed = heat.double().flatten(1), changed.flatten(1)
    share = torch.where(changed, heat, 0).sum(1) / heat.sum(1)
    return torch.where(changed.any(1), share.clamp(max=1), torch.nan)


def changed_share(changed: Tensor) -> Tensor:
    """Share of the pixels that the trigger changed, the chance level of `trigger_attention`: float64, shape (B,)."""
    return changed.flatten(1).double().mean(1)
