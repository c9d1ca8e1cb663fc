"""Anti-backdoor learning."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.catalog import Of, component
from bascule.core.images import Images
from bascule.core.inference import cross_entropies
from bascule.training._isolation import Isolating, check_stages, lowest, nobody, share_of, stage
from bascule.training.contract import Isolated, Memory, Objective, Samples
from bascule.training.standard import Standard


@component
class Abl(Isolating):
    """Anti-Backdoor Learning: what is learnt with too much ease is isolated, and unlearnt in the end.

    Three stages of whole epochs. First local gradient ascent, sign(CE - gamma) x CE, which holds the loss at gamma: an
    image far below it all the same is learnt with a shortcut. Then the images with the lowest cross-entropy (in eval
    mode, neither augmented nor perturbed) are isolated, and the others alone are trained on. In the last
    stage the mean cross-entropy of the isolated ones is raised.

    Source: Li et al. 2021 (NeurIPS), and their code (bboylyg/ABL): gamma 0.5, 1 % isolated after
    20 of 100 epochs (code: 10 of 75), 5 epochs of unlearning at 1/200 of the learning rate. Departures:

    - Their code may also flood the loss (Ishida et al. 2020), which is its default and not the paper's method.
    - An epoch of ours has as many steps whatever it is drawn from; one of theirs in the last stage is a single pass
      over the isolated images. So that more steps do no more, one whose loss is above `ceiling` is left as it is.
    - Stages are shares of the training; the first two have the schedule's learning rate, on one optimiser.
    - The second stage trains on the others alone, as their code does; in the paper unlearning begins with isolation,
      which is the same as `unlearn_for` of all epochs that are left.

    With an adversarial `inner` objective the losses of steps are those on its perturbed images; the paper has no such
    training. Adversarial training keeps the loss of clean images high, so that a trigger that no perturbation hides
    stands out the more; one that a perturbation hides may not be learnt before the task.
    """

    inner: Annotated[Objective, Of("train")] = Standard()
    """Chooses the images: `standard`, `pgd`, or another that is plain cross-entropy on images it chooses."""
    gamma: Annotated[float, Ge(0)] = 0.5
    """Cross-entropy below which the loss is raised again in the first stage; 0 is ordinary training."""
    ascent: Literal["batch", "image"] = "batch"
    """Whose loss the sign is taken of: of the `batch`, in the mean, as in their code; of each `image`, as in the
    paper's equation, which holds back poisoned images like all others."""
    isolate: Annotated[float, Interval(gt=0, lt=1)] = 0.01
    """Share of the training set that is isolated, rounded down, one image at least."""
    isolate_at: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of the epochs in the first stage, one epoch at least."""
    unlearn_for: Annotated[float, Interval(ge=0, lt=1)] = 0.05
    """Share of the epochs in the last stage, one epoch at least; 0 leaves that stage out."""
    unlearn: Literal["beside", "alone"] = "beside"
    """On what in the last stage: the isolated images `beside` the others, whose loss falls, as in the paper's equation;
    or `alone`, as in their code, which forgets more of the task."""
    unlearn_lr: Annotated[float, Gt(0)] = 0.005
    """Learning rate of the last stage, a share of `lr` that takes the place of the schedule. The published one is for
    SGD with 0.1; Adam, or `beside`, wants more."""
    ceiling: Annotated[float, Gt(0)] = 5.0
    """Cross-entropy above which an isolated image is unlearnt no further."""

    def check_epochs(self, epochs: int) -> None:
        check_stages(self, *self._stages(epochs), epochs=epochs)

    def begin(self, images: Images, *, epochs: int, generator: torch.Generator) -> Memory:
        self.check_epochs(epochs)
        return {"isolated": nobody(images), "loss": torch.zeros(len(images), device=images.device)}

    def step_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, samples: Samples, progress: float, generator: torch.Generator
    ) -> Tensor:
        seen = self.inputs(model, x, y, progress=progress, generator=generator)
        loss = self.losses(model, seen, y)
        first, last = self._stages(samples.epochs)
        if samples.epoch <= first:
            return local_ascent(loss if self.ascent == "image" else loss.mean(), self.gamma)
        if samples.epoch > samples.epochs - last:
            return global_ascent(loss, samples.memory["isolated"][samples.places], self.ceiling)
        return loss.mean()

    def end_epoch(
        self,
        model: nn.Module,
        images: Images,
        memory: Memory,
        *,
        epoch: int,
        epochs: int,
        generator: torch.Generator,
    ) -> None:
        if epoch == self._stages(epochs)[0]:
            loss = cross_entropies(model, images)
            memory["loss"] = loss
            memory["isolated"] = lowest(loss, images.ids, share_of(images, self.isolate))

    def drawn_from(self, memory: Memory, *, epoch: int, epochs: int) -> Tensor | None:
        first, last = self._stages(epochs)
        if epoch <= first:
            return None
        if epoch <= epochs - last:
            return ~memory["isolated"]
        return memory["isolated"] if self.unlearn == "alone" else None

    def lr_share(self, *, epoch: int, epochs: int) -> float | None:
        return self.unlearn_lr if epoch > epochs - self._stages(epochs)[1] else None

    def isolated(self, memory: Memory) -> Isolated:
        return Isolated(-memory["loss"], memory["isolated"])

    def _stages(self, epochs: int) -> tuple[int, int]:
        """Epochs of the first and of the last stage."""
        return stage(self.isolate_at, epochs), stage(self.unlearn_for, epochs)


def local_ascent(loss: Tensor, gamma: float) -> Tensor:
    """The mean of sign(loss - gamma) x loss (Li et al. 2021, equation 3); losses of any shape."""
    return ((loss.detach() - gamma).sign() * loss).mean()


def global_ascent(loss: Tensor, isolated: Tensor, ceiling: float) -> Tensor:
    """Mean loss of the other images of a batch less that of its isolated ones (Li et al. 2021, equation 4).

    Args:
        loss: Of each image, shape (B,).
        isolated: bool, shape (B,).
        ceiling: Above which an isolated image counts no further.
    """
    zero = loss.sum() * 0
    parts = (loss[~isolated], loss[isolated].clamp(max=ceiling))
    others, ours = (part.mean() if len(part) else zero for part in parts)
    return others - ours
