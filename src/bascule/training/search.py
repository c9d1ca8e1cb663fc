"""Looking for adversarial images in the middle of a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from bascule.attacks.ascent import ascend
from bascule.attacks.losses import Loss
from bascule.core.ball import Ball
from bascule.core.restore import evaluating, using_batch_statistics

Statistics = Literal["running", "batch"]
"""What batch norm uses during the search: `running` (eval mode) or `batch` (train mode, not updated)."""

_NUDGE = 0.001
"""Standard deviation of the Gaussian start: a gradient of exactly zero at the image itself would lead nowhere."""


@contextmanager
def search_mode(model: nn.Module, statistics: Statistics = "running") -> Iterator[None]:
    """A model ready for differentiating its input; found as it was afterwards."""
    mode = using_batch_statistics if statistics == "batch" else evaluating
    with mode(model, freeze=True):
        yield


def worst_nearby(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    steps: int,
    step_size: float | None,
    loss: Loss,
    generator: torch.Generator,
) -> Tensor:
    """Gradient ascent from a point a thousandth away from `x`: the search of TRADES and MART.

    Zhang et al. 2019 (algorithm 1), Wang et al. 2020. The model is used in the mode it is in. `step_size` is by
    default 2.5 * eps / steps.
    """
    start = x + _NUDGE * torch.empty_like(x).normal_(generator=generator)
    return ascend(
        model,
        x,
        y,
        ball=ball,
        start=ball.project(start, x),
        steps=steps,
        step_size=step_size or 2.5 * ball.eps / steps,
        loss=loss,
        stop_when_fooled=False,
    )


def divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(softmax(clean) || softmax(perturbed)) of logits B x K, per image, shape (B,)."""
    log_p, log_q = clean.log_softmax(1), perturbed.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
