"""Adversarial training."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.attacks.ascent import ascend
from bascule.attacks.losses import cross_entropy
from bascule.core.ball import ball
from bascule.core.catalog import component
from bascule.training.contract import Adversarial, CrossEntropy
from bascule.training.search import Statistics, search_mode


@component
class Pgd(Adversarial, CrossEntropy):
    """Cross-entropy on PGD examples of the whole batch, no clean images mixed in.

    Source: Madry et al. 2018; settings of Weng, Lee & Wu 2020: MNIST eps 0.3, step 0.05, 10 steps; CIFAR-10 eps 8/255,
    step 2/255, 5 steps, batch statistics during the attack; ImageNet the same with running statistics. Always takes the
    last iterate. In L1 the search is SLIDE (Tramer & Boneh 2019), as in the attack `pgd`. The eps warm-up is not in the
    paper; it keeps short schedules from getting stuck.
    """

    steps: Annotated[int, Ge(1)] = 5
    """Gradient steps of the attack."""
    step_size: Annotated[float, Gt(0)] | None = None
    """Length of a step in [0, 1] pixel units; by default 2.5 * eps / steps."""
    restarts: Annotated[int, Ge(1)] = 1
    """Random starts per batch; each image is trained on the one with the highest loss."""
    warmup: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the training over which eps and the step size rise linearly from 0."""
    batch_norm: Statistics = "running"
    """Statistics used by batch norm during the attack: `running` (eval mode) or `batch` (train mode, not updated)."""

    @property
    def steady_from(self) -> float | None:
        return self.warmup

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        ramp = min(1.0, progress / self.warmup) if self.warmup else 1.0
        region = ball(self.norm, ramp * self.eps)
        step_size = ramp * (self.step_size or 2.5 * self.eps / self.steps)
        with search_mode(model, self.batch_norm):
            tries = [
                ascend(
                    model,
                    x,
                    y,
                    ball=region,
                    start=region.random_point(x, generator=generator),
                    steps=self.steps,
                    step_size=step_size,
                    loss=cross_entropy,
                    stop_when_fooled=False,
                )
                for _ in range(self.restarts)
            ]
            if self.restarts == 1:
                return tries[0]
            with torch.no_grad():
                worst = torch.stack([cross_entropy(model(t), y) for t in tries]).argmax(0)
        return torch.stack(tries)[worst, torch.arange(len(x), device=x.device)]
