"""Anti-backdoor learning."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.catalog import Of, component, name_of
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.inference import cross_entropies
from bascule.train import Course, CrossEntropy, Isolated, Memory, Objective, Samples
from bascule.train.standard import Standard


@component
class Abl(Course):
    """Anti-Backdoor Learning: what is learnt with too much ease is isolated, and unlearnt in the end.

    Three stages of whole epochs. First local gradient ascent, sign(CE - gamma) x CE image by image, which lets the loss
    of an image fall no further than gamma: what falls all the same is a backdoor, which is learnt faster than the task.
    Then the images with the lowest cross-entropy (in eval mode, neither augmented nor perturbed) are isolated, and the
    others alone are trained on. In the last stage the cross-entropy of the isolated ones alone is raised.

    Source: Li et al. 2021 (NeurIPS), and their code (bboylyg/ABL): gamma 0.5, 1 % isolated after
    20 of 100 epochs (code: 10 of 75), 5 epochs of unlearning at 1/200 of the learning rate. Departures:

    - The sign is taken image by image, as in the paper's equation; their code takes that of the batch's mean loss, and
      by default floods it instead (Ishida et al. 2020).
    - An epoch of ours has as many steps whatever it is drawn from; one of theirs in the last stage is a single pass
      over the isolated images. So that more steps do no more, an image whose loss is above `ceiling` is left alone.
    - Stages are shares of the training; the first two have the schedule's learning rate, on one optimiser.
    - The second stage trains on the others alone, as their code does; the paper's equation for it raises the loss of
      the isolated ones at the same time.

    With an adversarial `inner` objective the losses of steps are those on its perturbed images; the paper has no such
    training. Adversarial training keeps the loss of clean images high, so that a trigger that no perturbation hides
    stands out the more; one that a perturbation hides may not be learnt before the task.
    """

    inner: Annotated[Objective, Of("train")] = Standard()
    """Chooses the images: `standard`, `pgd`, or another that is plain cross-entropy on images it chooses."""
    gamma: Annotated[float, Ge(0)] = 0.5
    """Cross-entropy below which an image is pushed away in the first stage; 0 is ordinary training."""
    isolate: Annotated[float, Interval(gt=0, lt=1)] = 0.01
    """Share of the training set that is isolated, rounded down, one image at least."""
    isolate_at: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of the epochs in the first stage, one epoch at least."""
    unlearn_for: Annotated[float, Interval(ge=0, lt=1)] = 0.05
    """Share of the epochs in the last stage, one epoch at least; 0 leaves that stage out."""
    unlearn_lr: Annotated[float, Gt(0)] = 0.005
    """Learning rate of the last stage, a share of `lr` that takes the place of the schedule."""
    ceiling: Annotated[float, Gt(0)] = 5.0
    """Cross-entropy above which an isolated image is unlearnt no further."""

    def __post_init__(self) -> None:
        check_inner(self.inner, "local gradient ascent goes image by image, so the inner objective must be one")

    @property
    def follows_gradients(self) -> bool:
        return self.inner.follows_gradients

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        self.inner.check_model(model, x)

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return self.inner.inputs(model, x, y, progress=progress, generator=generator)

    def begin(self, images: Images, *, epochs: int, generator: torch.Generator) -> Memory:
        first, last = self._stages(epochs)
        if first + last > epochs:
            raise RequestError(
                f"abl isolates after {first} and unlearns for {last} of {epochs} epochs: train for longer",
                place=("epochs",),
            )
        device = images.device
        return {
            "isolated": torch.zeros(len(images), dtype=torch.bool, device=device),
            "loss": torch.zeros(len(images), device=device),
        }

    def step_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, samples: Samples, progress: float, generator: torch.Generator
    ) -> Tensor:
        seen = self.inputs(model, x, y, progress=progress, generator=generator)
        loss = F.cross_entropy(model(seen), y, reduction="none")
        first, last = self._stages(samples.epochs)
        if samples.epoch <= first:
            return local_ascent(loss, self.gamma)
        if samples.epoch > samples.epochs - last:
            return -loss.clamp(max=self.ceiling).mean()
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
            memory["isolated"] = lowest(loss, images.ids, max(1, int(self.isolate * len(images))))

    def drawn_from(self, memory: Memory, *, epoch: int, epochs: int) -> Tensor | None:
        first, last = self._stages(epochs)
        if epoch <= first:
            return None
        return memory["isolated"] if epoch > epochs - last else ~memory["isolated"]

    def lr_share(self, *, epoch: int, epochs: int) -> float | None:
        return self.unlearn_lr if epoch > epochs - self._stages(epochs)[1] else None

    def isolated(self, memory: Memory) -> Isolated:
        return Isolated(-memory["loss"], memory["isolated"])

    def _stages(self, epochs: int) -> tuple[int, int]:
        """Epochs of the first and of the last stage."""
        return max(1, round(self.isolate_at * epochs)), max(
            1, round(self.unlearn_for * epochs)
        ) if self.unlearn_for else 0


def check_inner(inner: Objective, why: str) -> None:
    """Refuse an inner objective whose losses are not those of single images.

    Raises:
        RequestError: It is not plain cross-entropy on images it chooses.
    """
    if not isinstance(inner, CrossEntropy):
        raise RequestError(
            f"{why} that is plain cross-entropy on images it chooses, such as standard or pgd; {name_of(inner)} is not",
            place=("inner",),
        )


def local_ascent(loss: Tensor, gamma: float) -> Tensor:
    """The mean of sign(loss - gamma) x loss over images (Li et al. 2021, equation 3); losses of shape (B,)."""
    return ((loss.detach() - gamma).sign() * loss).mean()


def lowest(values: Tensor, ids: Tensor, count: int) -> Tensor:
    """bool, shape (N,): the `count` lowest values; of equal ones those with the lower id."""
    by_id = ids.argsort()
    chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    chosen[by_id[values[by_id].argsort(stable=True)[:count]]] = True
    return chosen
