"""Repairs, after training. One file each: model, the defender's clean images -> a model with other weights.

A repair never sees the truth: no trigger, no mask, no poisoned image. `run` gives it a copy of the model and checks
what comes back: same architecture and names of weights, so that pruning is a matter of zeros and nothing is removed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Interval
from torch import nn

from bascule.core import catalog
from bascule.core.ball import Eps, LinfOrL2
from bascule.core.calling import verb_of
from bascule.core.catalog import Of, name_of
from bascule.core.documented import documented
from bascule.core.errors import RequestError
from bascule.core.given import Data, Labels
from bascule.core.gradients import check_differentiable
from bascule.core.grid import Grid, TableCell
from bascule.core.images import Images
from bascule.core.rng import draw_seed
from bascule.core.shown import by_identity, html_of
from bascule.training.contract import Course, Objective
from bascule.training.loop import train
from bascule.training.settings import Augment, Training
from bascule.training.standard import Standard


@documented
@by_identity
class Repaired(NamedTuple):
    """A repaired model and what was done to it."""

    model: nn.Module
    """A new module of the same architecture."""
    notes: dict[str, float]
    """What was changed, by name: neurons pruned, classes unlearnt. `run` adds `distance`, the length of the change of
    all parameters divided by the length of the parameters before."""

    def __repr__(self) -> str:
        notes = ", ".join(f"{name} {value:.4g}" for name, value in self.notes.items())
        return f"Repaired: {type(self.model).__name__}\n  {notes or 'nothing noted'}"

    def _repr_html_(self) -> str:
        lines = [[TableCell(name), TableCell(f"{value:.4g}")] for name, value in self.notes.items()]
        return html_of([Grid([f"Repaired {type(self.model).__name__}"], ["Noted"], lines)])


@catalog.contract("repair")
@catalog.component
class Repair(ABC):
    """Settings of a model defence after training."""

    needs_images: ClassVar[bool] = True
    """Whether it looks at the defender's images; one that does not is shown a single black image of their size."""

    @property
    def follows_gradients(self) -> bool:
        """Whether it differentiates the model by the images; on one without such gradients it is refused."""
        return False

    @abstractmethod
    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        """Change `model` in place, or build another one with the same names of weights, and say what was changed.

        Args:
            model: From [0, 1] images to logits: a copy of the model under repair, in eval mode, every floating
                parameter wanting a gradient.
            images: The defender's clean images with their true labels, on the model's device.
            generator: On the device of the images.

        Raises:
            RequestError: The method cannot work on this model or with these images.
        """

    def check_model(self, model: nn.Module, images: Images) -> None:  # noqa: B027  (most take any model)
        """Refuse, before any training, a model that `repair` cannot work on; here none is.

        Args:
            model: As for `repair`; a fresh one that is thrown away. Called without gradients.
            images: Two images, as for `repair`; their labels mean nothing.

        Raises:
            RequestError: It has not what the method needs.
        """

    def __call__(self, model: nn.Module, x: Data, y: Labels | None = None, *, seed: int = 0) -> Repaired:
        """A repaired copy of a model: `bascule.repair(model, x, y, self, seed=seed)`."""
        return verb_of("repair")(model, x, y, self, seed=seed)


@catalog.component
class FineTuning(Repair):
    """A repair that trains on the defender's images.

    Defaults: those of BackdoorBench's `config/defense` (Wu et al. 2022: SGD at 0.01, momentum 0.9, weight decay 5e-4,
    100 passes, cosine), except for the batch. Theirs are 256 of 2,500 images, 10 steps a pass; of a few hundred images
    that would be a step or two, so batches are of 64, as in NAD's code: 700 steps with 500 images.
    """

    objective: Annotated[Objective, Of("train")] = Standard()
    """What a training step minimises: `standard`, or the recipe's own adversarial objective to keep robustness."""
    epochs: Annotated[int, Ge(0)] = 100
    """Passes over the defender's images; 0 trains nothing."""
    batch_size: Annotated[int, Ge(1)] = 64
    """Images per step; all of them when there are fewer."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """`sgd` uses `momentum`; `adam` and `adamw` use (momentum, 0.999)."""
    lr: Annotated[float, Gt(0)] = 0.01
    """Peak learning rate."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Momentum of SGD, first beta of Adam."""
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    """L2 coefficient (decoupled for `adamw`) on weights of convolutions and linear layers, not on biases or norms."""
    schedule: Literal["constant", "one-cycle", "cosine"] = "cosine"
    """Learning rate over the steps: `cosine` falls from `lr` to 0, `one-cycle` rises first."""
    augment: Augment = Augment()
    """Random shifts and mirroring."""

    wraps: ClassVar[bool] = False
    """Whether it trains on a loss of its own that `objective` is a part of."""

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Course):
            return
        if self.wraps:
            raise RequestError(
                f"{name_of(self.objective)} follows single images over a whole training, and here the objective is a "
                "part of another loss; use standard or pgd, or the repair fine-tune",
                place=("objective",),
            )
        if self.epochs:
            self.objective.check_epochs(self.epochs)

    @property
    def follows_gradients(self) -> bool:
        return self.objective.follows_gradients

    def tune(
        self,
        model: nn.Module,
        images: Images,
        *,
        generator: torch.Generator,
        objective: Objective | None = None,
        augment: Augment | None = None,
        epochs: int | None = None,
    ) -> None:
        """Train `model` in place with these settings, or with some replaced; in eval mode afterwards.

        Raises:
            DivergedError: A loss, parameter or running statistic is not finite.
            RequestError: The objective follows gradients that the model does not have.
        """
        epochs = self.epochs if epochs is None else epochs
        if epochs == 0:
            return
        objective = objective or self.objective
        if objective.follows_gradients:
            few = images.batch(torch.arange(min(2, len(images)), device=images.device))
            check_differentiable(model, few, who=name_of(objective), connected=True)
        training = Training(
            objective=objective,
            epochs=epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            augment=augment or self.augment,
        )
        train(model, images, training, seed=draw_seed(generator))


@catalog.component
class AdversarialTuning(FineTuning):
    """A repair that trains on adversarial images of the model itself, and on clean ones afterwards.

    Defaults: those of the code of Niu et al. 2024 (see `pbe`).
    """

    wraps = True

    schedule: Literal["constant", "one-cycle", "cosine"] = "constant"
    """Learning rate over the steps: `cosine` falls from `lr` to 0, `one-cycle` rises first."""
    norm: LinfOrL2 = "linf"
    """Norm of the ball: `linf` or `l2`."""
    eps: Eps = 6 / 255
    """Radius of the ball in [0, 1] pixel units."""
    steps: Annotated[int, Ge(1)] = 7
    """Gradient steps of the search."""
    step_size: Annotated[float, Gt(0)] | None = None
    """Length of a step in [0, 1] pixel units; by default eps / 5."""
    adversarial: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Share of the passes that are on adversarial images; `objective` has the others, which follow."""
    rounds: Annotated[int, Ge(1)] = 1
    """Times that the one is followed by the other."""

    @property
    def follows_gradients(self) -> bool:
        return self.adversarial > 0 or super().follows_gradients
