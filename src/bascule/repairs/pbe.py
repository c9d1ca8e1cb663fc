"""Fine-tuning on adversarial images of the model itself, then on clean ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.attacks.ascent import ascend
from bascule.attacks.losses import cross_entropy
from bascule.core.ball import ball
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.repairs.contract import AdversarialTuning, Repaired
from bascule.training.contract import Objective
from bascule.training.search import search_mode


@component
class Pbe(AdversarialTuning):
    """Teaches the model the true labels of its own untargeted adversarial images, then of clean ones (PBE).

    Untargeted adversarial images of a backdoored model resemble triggered ones in its features, so that unlearning
    these erases the backdoor. Source: Mu et al. 2023 (Progressive Backdoor Erasing via connecting Backdoor and
    Adversarial Attacks), in the setting of a defender with clean images: steps 1 and 2 once, which they call
    adversarial fine-tuning. Without clean images theirs also chooses them from the training set, which no repair is
    shown. Settings: the code of the authors' follow-up (see `pud`).

    Defaults: SGD at a constant 0.01, momentum 0.9, weight decay 5e-4, 7 signed steps of eps / 5 from the image itself
    within 6/255; 100 passes over 500 images are about as many steps as their ten and ten over 5,000. The ball is that
    of their code for GTSRB; for CIFAR-10 it counts in normalised values, about a quarter.

    Departures: adversarial images stay in [0, 1]; batch norm uses its running statistics during the search, theirs
    those of the batch; batches of 64 (see `fine-tune`), no rotations.
    """

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        self.tune(model, images, generator=generator, objective=Erasing(settings=self))
        return Repaired(model, {})


@component
class Erasing(Objective):
    """Cross-entropy on adversarial images for a share of each round, then another objective's loss."""

    settings: AdversarialTuning
    """Of the search and the rounds."""

    @property
    def follows_gradients(self) -> bool:
        return self.settings.follows_gradients

    def erases(self, progress: float) -> bool:
        """Whether a step is on adversarial images at this share of the training."""
        return progress * self.settings.rounds % 1 < self.settings.adversarial

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        ours = self.settings
        if not self.erases(progress):
            return ours.objective.inputs(model, x, y, progress=progress, generator=generator)
        with search_mode(model):
            return ascend(
                model,
                x,
                y,
                ball=ball(ours.norm, ours.eps),
                start=x,
                steps=ours.steps,
                step_size=ours.step_size or ours.eps / 5,
                loss=cross_entropy,
                stop_when_fooled=False,
            )

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        if not self.erases(progress):
            return self.settings.objective.loss(model, x, y, progress=progress, generator=generator)
        return F.cross_entropy(model(self.inputs(model, x, y, progress=progress, generator=generator)), y)
