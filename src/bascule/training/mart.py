"""Adversarial training that heeds what is misclassified."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from bascule.attacks.losses import cross_entropy
from bascule.core.catalog import component
from bascule.training.contract import DivergencePenalty
from bascule.training.search import divergence, search_mode, worst_nearby

_OFFSET = 1e-4
"""Keeps the logarithm of "no confidence is left" finite."""


@component
class Mart(DivergencePenalty):
    """Boosted cross-entropy on PGD examples, plus a divergence weighted by how wrong the clean prediction is.

    With p = softmax(f(x)), q = softmax(f(x')) and x' from PGD on cross-entropy:
    L = -log q_y - log(1 - max_{k != y} q_k) + beta * KL(p || q) * (1 - p_y).
    Source: Wang et al. 2020 (MART), section 3. As in the authors' code the attack runs in eval mode, the loss
    in train mode in two passes, the clean one first, and 0.0001 is added inside the second logarithm. Departure: in L2
    the same projected unit steps as everywhere here.
    """

    beta: Annotated[float, Ge(0)] = 6.0
    """Weight of the divergence, lambda in the paper; the authors use 5 for small networks and 6 for wide ones."""

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        with search_mode(model):
            return worst_nearby(
                model,
                x,
                y,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
                loss=cross_entropy,
                generator=generator,
            )

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        perturbed = self.inputs(model, x, y, progress=progress, generator=generator)
        clean, adversarial = model(x), model(perturbed)
        label = y.unsqueeze(1)
        rival = adversarial.softmax(1).scatter(1, label, 0).amax(1)
        boosted = F.cross_entropy(adversarial, y, reduction="none") - torch.log(1 + _OFFSET - rival)
        doubt = 1 - clean.softmax(1).gather(1, label).squeeze(1)
        return (boosted + self.beta * divergence(clean, adversarial) * doubt).mean()
