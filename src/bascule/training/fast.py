"""Fast adversarial training."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from bascule.attacks.ascent import ascend
from bascule.attacks.losses import cross_entropy
from bascule.core.ball import LinfOrL2
from bascule.core.catalog import component
from bascule.training.contract import Adversarial, CrossEntropy
from bascule.training.search import Statistics, search_mode


@component
class Fast(Adversarial, CrossEntropy):
    """Cross-entropy on images moved by one gradient step from a random start: two passes instead of PGD's many.

    Source: Wong, Rice & Kolter 2020 (algorithm 3). The same as `pgd` with one step of 1.25 * eps. Watch the robust
    accuracy under PGD: one-step training can collapse late ("catastrophic overfitting"). Departures: their code attacks
    in train mode and lets the attack update batch norm, here it never does; they define Linf only.

    Free adversarial training (Shafahi et al. 2019), its usual companion, is not offered: it replays a batch several
    times, carries the perturbation from one step to the next, and takes the gradients for parameters and perturbation
    from one backward pass. An objective keeps nothing between steps and does not run the backward pass.
    """

    norm: LinfOrL2 = "linf"
    """Norm of the ball: `linf` or `l2`."""
    step_size: Annotated[float, Gt(0)] | None = None
    """Length of the step in [0, 1] pixel units; by default 1.25 * eps."""
    batch_norm: Statistics = "running"
    """Statistics used by batch norm during the attack: `running` (eval mode) or `batch` (train mode, not updated)."""

    @property
    def steady_from(self) -> float | None:
        return 0.0

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        with search_mode(model, self.batch_norm):
            return ascend(
                model,
                x,
                y,
                ball=self.ball,
                start=self.ball.random_point(x, generator=generator),
                steps=1,
                step_size=self.step_size or 1.25 * self.eps,
                loss=cross_entropy,
                stop_when_fooled=False,
            )
