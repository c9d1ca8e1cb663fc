"""Fine-tuning on adversarial images beside a mean teacher: against backdoors and evasion at once."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.repairs.contract import AdversarialTuning, Repaired
from bascule.repairs.pbe import Erasing
from bascule.training.contract import check_plain


@component
class Pud(AdversarialTuning):
    """Erases a backdoor by the model's own adversarial images and goes on to harden it, beside a mean teacher (PUD).

    Loss: CE on the adversarial images + weight * mean squared length of the difference from the teacher's
    probabilities, the teacher being a running mean of the model's weights over the steps. First the adversarial images
    stand in for triggered ones; once the backdoor is gone they harden. Source: Niu et al. 2024 (Towards Unified
    Robustness Against Both Backdoor and Adversarial Attacks: Progressive Unified Defense), which extends `pbe`, in its
    setting of a defender with clean images, with the terms of their code. The parts that choose clean images from the
    poisoned training set and unlearn those left over have nothing to work on here.

    Defaults: those of `pbe`; the mean's 0.99 of their code, and its weight: 0.05 on the sum over a batch of 128. Robust
    it becomes within `eps`: raise that to the radius that matters.

    Departures: every pass is on adversarial images, as the paper has it; their code switches the search off in its last
    passes, which a smaller `adversarial` does. The teacher has the model's running statistics, theirs those of the
    start. Others as in `pbe`. As in their code the model is kept, not the teacher.
    """

    adversarial: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Share of the passes that are on adversarial images; `objective` chooses those of the others, which follow."""
    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """Share of the teacher that a step leaves, from 0 in the first step on at most step / (step + 1)."""
    weight: Annotated[float, Ge(0)] = 6.4
    """Weight of the difference from the teacher."""

    def __post_init__(self) -> None:
        wanted = "the teacher is asked on the images a plain cross-entropy is taken on, as in standard or pgd"
        check_plain(self.objective, wanted, place="objective")

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        beside = BesideTeacher(settings=self, teacher=MeanTeacher(model), decay=self.decay, weight=self.weight)
        self.tune(model, images, generator=generator, objective=beside)
        return Repaired(model, {})


class MeanTeacher(nn.Module):
    """A copy of a model, in eval mode, whose weights follow it as a running mean."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.steps = 0
        """Steps that it has followed."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits, B x K."""
        logits: Tensor = self.model(x)
        return logits

    @torch.no_grad()
    def follow(self, model: nn.Module, decay: float) -> None:
        """Take a step towards the model's weights, and its running statistics as they are."""
        kept = min(1 - 1 / (self.steps + 1), decay)
        for mean, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, 1 - kept)
        for own, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(buffer)
        self.steps += 1


@component
class BesideTeacher(Erasing):
    """Cross-entropy on adversarial images, and the difference from a mean teacher on the same ones."""

    teacher: nn.Module
    """A `MeanTeacher` of the model."""
    decay: float
    """Of its mean."""
    weight: float
    """Of the difference."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        assert isinstance(self.teacher, MeanTeacher)
        seen = self.inputs(model, x, y, progress=progress, generator=generator)
        with torch.no_grad():
            wanted = self.teacher(seen).softmax(1)
        self.teacher.follow(model, self.decay)  # with the weights before this step, as in their code
        logits = model(seen)
        difference = (logits.softmax(1) - wanted).square().sum(1).mean()
        return F.cross_entropy(logits, y) + self.weight * difference
