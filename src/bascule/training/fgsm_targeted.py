"""Adversarial training with one step towards a random label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.attacks.ascent import one_step
from bascule.attacks.losses import nearness_to_random_label
from bascule.core.ball import Eps, LinfOrL2
from bascule.core.catalog import component
from bascule.training.contract import Adversarial, CrossEntropy
from bascule.training.search import Statistics, search_mode


@component
class FgsmTargeted(Adversarial, CrossEntropy):
    """Cross-entropy on images moved by one step of length eps towards a random wrong label.

    Source: the one-step target class method of Kurakin, Goodfellow & Bengio 2017 with a random class; the "FGSM"
    training of Weng, Lee & Wu 2020 (supplement): eps 0.3 on MNIST, 8/255 on CIFAR-10, from the image itself, evaluated
    with the attack of the same name. Departure from their ImageNet code: the label drawn is never the true one.
    """

    norm: LinfOrL2 = "linf"
    """Norm of the ball: `linf` or `l2`."""
    eps: Eps
    """Radius of the ball and length of the step in [0, 1] pixel units."""
    batch_norm: Statistics = "running"
    """Statistics used by batch norm during the attack: `running` (eval mode) or `batch` (train mode, not updated)."""

    @property
    def steady_from(self) -> float | None:
        return 0.0

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        with search_mode(model, self.batch_norm):
            return one_step(model, x, y, ball=self.ball, loss=nearness_to_random_label(generator=generator))
