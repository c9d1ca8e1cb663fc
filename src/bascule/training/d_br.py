"""Backdoor removal by the sensitivity of poisoned samples."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Interval
from torch import Tensor, nn

from bascule.core.ahead import read_batches
from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.core.features import Features, features
from bascule.core.images import Images, as_bytes
from bascule.core.inference import chunks
from bascule.core.motion import PARAMETERS, Motions
from bascule.training._isolation import Isolating, check_stages, lowest, nobody, share_of, stage
from bascule.training.contract import Isolated, Memory, Objective, Samples
from bascule.training.standard import Standard


@component
class DBr(Isolating):
    """D-BR: images whose features change much when they are moved are isolated, and unlearnt in the end.

    Four stages of whole epochs. First plain training; then, for a few epochs, the classes are driven apart. After that
    each image is compared with a copy that is turned and shifted at random: the squared distance between their
    features (FCT, feature consistency towards transformations) is large where a trigger decides. The most sensitive
    images are isolated, the least sensitive ones trusted, and nothing is done about the rest. The third stage is plain
    training on all images. In the last stage isolated images are unlearnt (their cross-entropy is raised) and trusted
    ones relearnt.

    Source: Chen, Wu & Wang 2022 (NeurIPS), and their code (SCLBD/Effective_backdoor_defense): turned by up to 180
    degrees, then shifted by up to a fifth, 5 % isolated, 20 % trusted; 2, 10, 200 and 20 epochs, the last at 1/100 of
    the learning rate. Departures:

    - They tell samples apart with a network of its own (the first two stages, without augmentation) and remove the
      backdoor from another one. Here one network goes through all four, with the schedule's learning rate, the
      optimiser and the augmentation of the training.
    - Classes are driven apart at the logits, as in BackdoorBench (d-br.py); in their code at the last layer's input.
    - An image is moved once, with linear interpolation and shifts of any length; theirs is moved in two steps, to the
      nearest pixel. Each image is moved by draws of its own, one copy each, as theirs.
    - An epoch of theirs in the last stage is one pass over the isolated images, then one over the trusted. With
      `turns` of whole epochs, as many steps as ever, unlearning goes on for longer; `beside` keeps the proportions. So
      that more steps do no more, an image whose cross-entropy is above `ceiling` is left as it is.
    - They keep the epoch of the last stage with the best accuracy less ASR on test images, which nobody can know;
      here the last one is kept.

    With an adversarial `inner` objective the losses of steps, and the classes that are driven apart, are those on its
    perturbed images; images are moved unperturbed. The paper has no such training.
    """

    inner: Annotated[Objective, Of("train")] = Standard()
    """Chooses the images: `standard`, `pgd`, or another that is plain cross-entropy on images it chooses."""
    learn_for: Annotated[float, Interval(gt=0, lt=1)] = 0.01
    """Share of the epochs in the first stage, one epoch at least."""
    spread_for: Annotated[float, Interval(ge=0, lt=1)] = 0.04
    """Share of the epochs in the second stage, one epoch at least; 0 leaves that stage out."""
    degrees: Annotated[float, Interval(ge=0, le=180)] = 180.0
    """Largest angle by which an image is turned to see how sensitive it is, either way."""
    shift: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Largest shift of a turned image, either way, a share of its height and of its width."""
    layer: str | None = None
    """Module whose output is compared, named as in the model (`group3.1`); by default the input of the last linear
    layer."""
    isolate: Annotated[float, Interval(gt=0, lt=1)] = 0.05
    """Share of the training set that is isolated, the most sensitive, rounded down, one image at least."""
    trust: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of the training set that is taken for clean, the least sensitive, rounded down, one image at least."""
    unlearn_for: Annotated[float, Interval(ge=0, lt=1)] = 0.09
    """Share of the epochs in the last stage, in pairs of epochs, one pair at least; 0 leaves that stage out."""
    unlearn: Literal["turns", "beside"] = "turns"
    """How in the last stage: in `turns`, an epoch of unlearning and one of relearning in each pair, as published; or
    `beside` each other in every step, each image as often as another."""
    unlearn_lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate of the last stage, a share of `lr` that takes the place of the schedule."""
    ceiling: Annotated[float, Gt(0)] = 5.0
    """Cross-entropy above which an isolated image is unlearnt no further."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.isolate + self.trust > 1:
            raise RequestError(
                f"shares of {self.isolate:g} isolated and {self.trust:g} trusted are more than the whole set",
                place=("trust",),
            )

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        super().check_model(model, x)
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        images = Images(pixels=as_bytes(x), labels=none, ids=torch.arange(len(x), device=x.device), classes=("none",))
        features(model, images, layer=self.layer)

    def check_epochs(self, epochs: int) -> None:
        first, spread, last = self._stages(epochs)
        check_stages(self, first + spread, last, epochs=epochs)

    def begin(self, images: Images, *, epochs: int, generator: torch.Generator) -> Memory:
        self.check_epochs(epochs)
        if len(images) < 2:
            raise RequestError("d-br isolates one image and trusts another: it needs two at least")
        none = nobody(images)
        return {"isolated": none, "trusted": none.clone(), "sensitivity": torch.zeros(len(none), device=none.device)}

    def step_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, samples: Samples, progress: float, generator: torch.Generator
    ) -> Tensor:
        seen = self.inputs(model, x, y, progress=progress, generator=generator)
        first, spread, _ = self._stages(samples.epochs)
        if first < samples.epoch <= first + spread:
            return similarity_of_classes(model(seen), y)
        loss = self.losses(model, seen, y)
        if not self._ends(samples.epoch, samples.epochs):
            return loss.mean()
        if self.unlearn == "beside":
            return torch.where(samples.memory["isolated"][samples.places], -loss.clamp(max=self.ceiling), loss).mean()
        return -loss.clamp(max=self.ceiling).mean() if self._climbs(samples.epoch, samples.epochs) else loss.mean()

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
        first, spread, _ = self._stages(epochs)
        if epoch != first + spread:
            return
        fct = sensitivities(features(model, images, layer=self.layer), self.motions(images, generator=generator))
        isolated = lowest(-fct, images.ids, share_of(images, self.isolate))
        trusted = lowest(fct.masked_fill(isolated, torch.inf), images.ids, share_of(images, self.trust))
        memory.update(sensitivity=fct, isolated=isolated, trusted=trusted)

    def drawn_from(self, memory: Memory, *, epoch: int, epochs: int) -> Tensor | None:
        if not self._ends(epoch, epochs):
            return None
        if self.unlearn == "beside":
            return memory["isolated"] | memory["trusted"]
        return memory["isolated" if self._climbs(epoch, epochs) else "trusted"]

    def lr_share(self, *, epoch: int, epochs: int) -> float | None:
        return self.unlearn_lr if self._ends(epoch, epochs) else None

    def isolated(self, memory: Memory) -> Isolated:
        return Isolated(memory["sensitivity"], memory["isolated"])

    def motions(self, images: Images, *, generator: torch.Generator) -> Tensor:
        """How each image is moved (`core.motion`): floats, N x 3, drawn evenly in the order of the ids."""
        _, height, width = images.size
        limits = torch.tensor([self.degrees, self.shift * height, self.shift * width], device=images.device)
        drawn = torch.rand(len(images), PARAMETERS, generator=generator, device=images.device) * 2 - 1
        motions = torch.empty_like(drawn)
        motions[images.ids.argsort()] = drawn * limits
        return motions

    def _stages(self, epochs: int) -> tuple[int, int, int]:
        """Epochs of the first, the second and the last stage."""
        last = 2 * stage(self.unlearn_for / 2, epochs)
        return stage(self.learn_for, epochs), stage(self.spread_for, epochs), last

    def _ends(self, epoch: int, epochs: int) -> bool:
        """Whether this epoch (from 1) belongs to the last stage."""
        return epoch > epochs - self._stages(epochs)[2]

    def _climbs(self, epoch: int, epochs: int) -> bool:
        """Whether an epoch of the last stage is one of unlearning: the first of each pair."""
        return (epochs - epoch) % 2 == 1


def sensitivities(features: Features, motions: Tensor) -> Tensor:
    """Feature consistency towards transformations of each image, float32, shape (N,): the higher, the less consistent.

    The squared difference between the features of an image and of its moved copy, in the mean over the features.

    Args:
        features: Of the set.
        motions: How each image is moved (`core.motion`), N x 3.
    """
    images = features.images
    moved = Motions(degrees=180.0, pixels=float(max(images.size[1:])))  # no limit to what is drawn within it
    parts = []
    for index, x in read_batches(images, chunks(len(images), features.batch_size, images.device)):
        parts.append((features.of(x) - features.of(moved.realise(motions[index], x))).square().mean(1))
    return torch.cat(parts)


def similarity_of_classes(logits: Tensor, y: Tensor) -> Tensor:
    """The cosines between the mean logits of the classes in a batch, summed over pairs of two and divided by all pairs.

    The intra-class loss of Chen et al. 2022, as their code has it: the pairs of a class with itself count as 0.

    Args:
        logits: B x K.
        y: int64 labels, shape (B,).
    """
    own = F.one_hot(y, logits.shape[1]).to(logits)
    own = own[:, own.any(0)]
    centres = F.normalize(own.T @ logits / own.sum(0).unsqueeze(1), dim=1)
    cosines = centres @ centres.T
    return (cosines.sum() - cosines.diagonal().sum()) / len(centres) ** 2
