"""Trading accuracy for smooth predictions."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.training.contract import DivergencePenalty, Smoothing
from bascule.training.search import divergence, search_mode, worst_nearby


@component
class Trades(DivergencePenalty, Smoothing):
    """Clean cross-entropy plus beta times the largest change of the prediction found in the ball.

    L = CE(f(x), y) + beta * KL(f(x) || f(x')), where x' maximises the same divergence: the label is not used to attack.
    Source: Zhang et al. 2019 (TRADES), algorithm 1. As in the authors' code the attack runs in eval
    mode, and both terms of the loss in train mode in two passes, the clean one first. Departure: in L2 the same
    projected unit steps as everywhere here; their code descends with an optimiser.
    """

    beta: Annotated[float, Ge(0)] = 6.0
    """Weight of the divergence, 1/lambda in the paper; 0 is ordinary training."""

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        with search_mode(model):
            with torch.no_grad():
                clean = model(x)
            return worst_nearby(
                model,
                x,
                y,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
                loss=lambda logits, _: divergence(clean, logits),
                generator=generator,
            )

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        if self.beta == 0:
            return self.cross_entropy(model(x), y)
        perturbed = self.inputs(model, x, y, progress=progress, generator=generator)
        clean = model(x)
        return self.cross_entropy(clean, y) + self.beta * divergence(clean, model(perturbed)).mean()
