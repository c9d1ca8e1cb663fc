"""Training objectives. One file each: model, images, labels -> the loss of one step. `loop` has the only training loop.

An objective knows nothing of the loop, and the loop nothing of attacks: ramps (of eps, of weights) are the objective's
own, driven by `progress`. A `Course` is told besides which images a step is taken on and when an epoch ends.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.ball import Ball, Eps, Norm, ball
from bascule.core.errors import RequestError
from bascule.core.images import Images


@catalog.contract("train")
@catalog.component
class Objective(ABC):
    """What one training step minimises."""

    needs_float32: ClassVar[bool] = False
    """Whether it looks into the network for bounds, which mixed precision would neither reach nor leave sound."""

    compiles: ClassVar[bool] = True
    """Whether all it asks of the network are logits and their first derivatives: nothing else can be compiled."""

    @property
    def follows_gradients(self) -> bool:
        """Whether it differentiates the network by the images: without such gradients it would train on noise."""
        return False

    @property
    def steady_from(self) -> float | None:
        """Share of the training from which on every step is the same operations, so that they can be captured.

        None, as long as nobody says otherwise: `progress` changes them to the end, or what they find decides which come
        next.
        """
        return None

    @property
    def ball(self) -> Ball | None:
        """The threat model that it makes a model robust in; None where it has none, or none that is a ball."""
        return None

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        """The images a step is taken on: `x` itself, or perturbed copies of it. Arguments as for `loss`."""
        return x

    @abstractmethod
    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        """Mean loss of a batch, a scalar to differentiate for the parameters.

        Args:
            model: From [0, 1] images to logits, in train mode; must be left in the mode it is found in. Mixed precision
                and compilation stand around the network; its logits are floats of the images' type all the same.
            x: Floats in [0, 1], B x C x H x W, stamped and augmented; of a batch that is cut, one share.
            y: int64 labels, shape (B,).
            progress: Share of the training that is done, in [0, 1).
            generator: On the device of `x`.
        """

    def check_model(self, model: nn.Module, x: Tensor) -> None:  # noqa: B027  (most take any model)
        """Refuse, before any training, a model that `loss` cannot work on; here none is.

        Args:
            model: A fresh one that is thrown away, in train mode.
            x: Two images, as for `loss`. Called without gradients.

        Raises:
            RequestError: It asks for what the model does not give.
        """


@catalog.component
class Smoothing(Objective):
    """An objective with a cross-entropy with the labels, which may be smoothed."""

    later: ClassVar[tuple[str, ...]] = ("label_smoothing",)
    """Fields that came after records had been written."""

    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of each label that is spread evenly over all classes in the cross-entropy that is minimised (Szegedy et al.
    2016, section 7; in adversarial training Pang et al. 2021). A search for adversarial images goes by the labels as
    they are."""

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of a batch; logits B x K, labels of shape (B,)."""
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)


@catalog.component
class CrossEntropy(Smoothing):
    """An objective that is the mean cross-entropy on its `inputs` and nothing else, so that others can add to it."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return self.cross_entropy(model(self.inputs(model, x, y, progress=progress, generator=generator)), y)


def check_plain(objective: Objective, wanted: str, *, place: str) -> None:
    """Refuse an objective whose loss is not plain cross-entropy on images it chooses, where another one builds on that.

    Args:
        objective: What is built on.
        wanted: What is wanted and why, for people.
        place: The setting that holds it.

    Raises:
        RequestError: It is no `CrossEntropy`.
    """
    if not isinstance(objective, CrossEntropy):
        raise RequestError(f"{wanted}; {catalog.name_of(objective)} is not one", place=(place,))


@catalog.component
class Adversarial(Objective):
    """An objective on images that are searched for in a ball."""

    follows_gradients: ClassVar[bool] = True

    norm: Norm = "linf"
    """Norm of the ball: `linf`, `l2` or `l1`."""
    eps: Eps
    """Radius of the ball in [0, 1] pixel units."""

    @property
    def ball(self) -> Ball:
        """The threat model."""
        return ball(self.norm, self.eps)


@catalog.component
class DivergencePenalty(Adversarial):
    """An adversarial objective that adds a divergence between the predictions for clean and for perturbed images."""

    beta: Annotated[float, Ge(0)] = 6.0
    """Weight of the divergence."""
    steps: Annotated[int, Ge(1)] = 10
    """Gradient steps of the attack."""
    step_size: Annotated[float, Gt(0)] | None = None
    """Length of a step in [0, 1] pixel units; by default 2.5 * eps / steps."""

    @property
    def steady_from(self) -> float | None:
        return 0.0


Memory = dict[str, Tensor]
"""What a course remembers: plain tensors by name, owned by the training loop and kept in its checkpoints."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The images of one step within the training."""

    places: Tensor
    """Their positions in the training set, int64, shape (B,), on its device; an image may stand there twice."""
    epoch: int
    """From 1."""
    epochs: int
    """Of the whole training."""
    memory: Memory
    """A step may change it, where its batch is not cut into shares."""


@dataclass(frozen=True, eq=False)
class Isolated:
    """What a course has come to think of single training images."""

    score: Tensor
    """The higher, the more suspicious; floats, shape (N,)."""
    isolated: Tensor
    """Those that it took for poisoned; bool, shape (N,)."""


@catalog.component
class Course(Objective):
    """An objective that follows single images over the epochs of a training: what it minimises depends on them.

    The loop calls `begin` once, asks before every epoch what it is drawn from, takes the steps, and tells of its end.
    Whatever is remembered is in the memory: a training that continues from a checkpoint has it as it was. What
    is decided about an image must not depend on its position: of equal ones the lower id comes first.
    """

    @property
    def steady_from(self) -> float | None:
        return None  # which images a step is taken on decides what it does

    def check_epochs(self, epochs: int) -> None:
        """Refuse, before any work, a training of so few epochs; here none is too short.

        Raises:
            RequestError: The training is too short.
        """

    @abstractmethod
    def begin(self, images: Images, *, epochs: int, generator: torch.Generator) -> Memory:
        """The memory before the first step, on the device of the images.

        Args:
            images: The training set.
            epochs: Of the training.
            generator: On the device of the images; this and those of `end_epoch` are streams of their own.

        Raises:
            RequestError: The training is too short (`check_epochs`), or the set too small.
        """

    @abstractmethod
    def step_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, samples: Samples, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Loss of a batch, a scalar to differentiate for the parameters; `loss` with the samples known."""

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
        """Look at the model after an epoch (from 1), on the training set, and change the memory.

        The model is lent in eval mode, frozen, in full precision and without gradients, and stays as it is.
        """

    def drawn_from(self, memory: Memory, *, epoch: int, epochs: int) -> Tensor | None:
        """Which images this epoch is drawn from, bool, shape (N,), not none of them; None for all.

        An epoch has as many steps as ever: a part of the set is gone through several times.
        """
        return None

    def lr_share(self, *, epoch: int, epochs: int) -> float | None:
        """Share of the peak learning rate in this epoch, in place of the schedule's; None to leave it."""
        return None

    def isolated(self, memory: Memory) -> Isolated | None:
        """At the end: which images were isolated; None where none can be."""
        return None

    def at(self, samples: Samples) -> Objective:
        """The objective of one step: this one with its samples known, so that it has a `loss`."""
        bound = copy.copy(self)
        object.__setattr__(bound, "_samples", samples)  # components are frozen
        return bound

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        """That of a step, where its samples are known (`at`).

        Raises:
            RequestError: They are not.
        """
        samples = vars(self).get("_samples")
        if samples is None:
            raise RequestError(
                f"{catalog.name_of(self)} follows single images over a whole training: it can be the objective of "
                "`train`, and not a part of another one or of a repair"
            )
        return self.step_loss(model, x, y, samples=samples, progress=progress, generator=generator)
