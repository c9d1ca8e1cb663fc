"""A trained model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bascule.api.given import as_set, floats_for, part_of
from bascule.api.verb import verb
from bascule.core import rng
from bascule.core.catalog import construct, name_of
from bascule.core.documented import documented
from bascule.core.errors import RequestError, placed
from bascule.core.given import Data, Labels, labelled
from bascule.core.gradients import check_differentiable, no_gradients
from bascule.core.grid import Grid, TableCell
from bascule.core.images import Images
from bascule.core.restore import repeatable
from bascule.core.shown import Lines, Part, Shown
from bascule.core.text import count
from bascule.models.checks import check_network
from bascule.models.contract import Architecture
from bascule.running.held_out import HeldOut
from bascule.training.contract import Course, Isolated, Objective
from bascule.training.loop import train as train_in_place
from bascule.training.settings import Training

Told = Callable[[int, int, float, float], None]
"""(step, steps in all, latest loss, learning rate), called now and then."""


@documented
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trained(Shown):
    """A trained model, and how its training went."""

    model: nn.Module
    """From [0, 1] images to logits, in eval mode."""
    curve: tuple[Mapping[str, float], ...]
    """One entry per epoch: `epoch` (from 1), `step`, `loss` (mean of the epoch), `lr`, `seconds` since the start."""
    isolated: Tensor | None = None
    """bool, shape (N,), on the CPU: images that the objective took for poisoned (`abl`, `d-br`); None where it looks
    for none."""

    def __str__(self) -> str:
        first, last = self.curve[0], self.curve[-1]
        found = "" if self.isolated is None else f"\n  {count(int(self.isolated.sum()), 'image')} isolated"
        return (
            f"Trained: {type(self.model).__name__}, {count(len(self.curve), 'epoch')}, {last['seconds']:.1f} s\n"
            f"  loss {first['loss']:.3g} in the first epoch, {last['loss']:.3g} in the last{found}"
        )

    def shown(self) -> Sequence[Part]:
        names = [name for name in self.curve[-1] if name != "epoch"]
        epochs = list(enumerate(self.curve, start=1))
        if len(epochs) > _EPOCHS:
            epochs = [epochs[0], *epochs[1 - _EPOCHS :]]
        lines = [
            [TableCell(f"{epoch}"), *(TableCell(_said(said.get(name))) for name in names)] for epoch, said in epochs
        ]
        return [
            Grid(["Epoch"], names, lines),
            Lines([f"{type(self.model).__name__}, {count(len(self.curve), 'epoch')}"]),
        ]


_EPOCHS = 10
"""Epochs that a notebook shows: the first, and the last ones."""


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else ""


@verb
def train(
    model: nn.Module | str | Mapping[str, Any] | Architecture,
    x: Data,
    y: Labels | None,
    objective: str | Mapping[str, Any] | Objective = "standard",
    *,
    epochs: int,
    training: Mapping[str, Any] | None = None,
    held_out: tuple[Data, Labels] | Data | None = None,
    classes: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Told | None = None,
    **settings: Any,
) -> Trained:
    """A trained copy of a model: `bascule.train(model, x, y, "pgd", eps=8 / 255, epochs=10).model`.

    A network that is given by name is made for these images, with weights drawn from `seed`; the same weights as in a
    study with these settings and this seed.

    Args:
        model: From [0, 1] images to logits; it is copied and stays as it is. Or an architecture: a name (see
            `bascule ls models`), a mapping as in a study file, or itself.
        x: The training set, N x C x H x W with 1 or 3 channels, floats in [0, 1] or uint8 (0 to 255); or a data set or
            loader, as `evaluate` takes it: gone through once and held in memory, so that its augmentation is drawn
            once. Augment with `training={"augment": {"pad": 4, "flip": True}}`.
        y: Labels, whole numbers, shape (N,); None with a data set.
        objective: A name (see `bascule ls train`) with its settings as keywords; or a mapping as in a study file, or an
            objective itself.
        epochs: Passes over the training set, at least 1.
        training: The rest of the key `train` of a study: `batch_size`, `optimizer`, `lr`, `schedule`, `augment` ...
        held_out: Clean images for `training={"keep": "best"}`: (x, y), or a data set.
        classes: Number of classes of a network that is made; by default the highest label and one.
        seed: Of everything that is drawn.
        device: Where to train; by default where the model is, or the images for one that is made.
        progress: Called now and then with step, steps in all, loss and learning rate.
        settings: Of the objective: `bascule show train/NAME`.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a model that does not answer with logits, or one
            that the objective cannot train.
        DivergedError: A loss, parameter or running statistic is not finite: a rate that is too large, mostly.
    """
    plan = _plan(part_of("train", objective, settings), epochs, training or {})
    network, images = _begun(model, x, y, classes, plan.objective, seed)
    where = images.device if device is None else torch.device(device)
    images, network = images.to(where), network.to(where)
    _check(network, images, plan.objective)
    isolated: list[Isolated] = []
    judge, report = _judge(plan, network, held_out, seed), progress or (lambda *_: None)
    with repeatable(where), torch.enable_grad():
        curve = train_in_place(network, images, plan, seed=seed, judge=judge, tell=isolated.append, report=report)
    found = isolated[0].isolated.cpu() if isolated else None
    # Whatever it was trained in, weights are given back as files of weights take them.
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Trained(model=network.eval(), curve=tuple(curve), isolated=found)


def _begun(
    model: Any, x: Data, y: Labels | None, classes: int | None, objective: Objective, seed: int
) -> tuple[nn.Module, Images]:
    """The network before its training, a copy of the model or a new one, and its training set."""
    if isinstance(model, nn.Module):
        floats, known = floats_for(model, x, y, seed)
        _check_classes(classes, known, exactly=True)
        return copy.deepcopy(model), as_set(floats, known)
    architecture: Architecture = part_of("models", model, {})
    floats = labelled(x, y, seed=seed)
    images = as_set(floats, _check_classes(classes, int(floats.labels.max()) + 1))
    return _made(architecture, images, objective, seed), images


def _plan(objective: Objective, epochs: int, rest: Mapping[str, Any]) -> Training:
    with placed("training"):
        for name in ("objective", "epochs"):
            if name in rest:
                raise RequestError(f"give it as the argument `{name}`", place=(name,))
    try:
        plan = construct(Training, {"objective": objective, "epochs": epochs, **rest})
    except RequestError as error:
        raise (error if error.place[:1] == ("epochs",) else error.at("training")) from None
    if isinstance(objective, Course):
        objective.check_epochs(epochs)
    return plan


def _check_classes(given: int | None, known: int, *, exactly: bool = False) -> int:
    """The number of classes.

    Raises:
        RequestError: There are more, or the model has another number.
    """
    if given is None or given == known:
        return known
    if exactly or given < known:
        whose = "the model has" if exactly else "the labels are of"
        raise RequestError(f"{whose} {count(known, 'class', 'classes')}, not {given}", place=("classes",))
    return given


def _made(architecture: Architecture, images: Images, objective: Objective, seed: int) -> nn.Module:
    """The network for these images, with its first weights."""
    with placed("model"):
        flat = check_network(architecture, images.size, len(images.classes), trained=True)
    if flat and objective.follows_gradients:
        raise RequestError(no_gradients(name_of(objective)), place=("objective",))
    made = architecture.initialised(images.size, len(images.classes), seed=seed)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _check(network: nn.Module, images: Images, objective: Objective) -> None:
    """Refuse what the objective cannot train, on a copy that is thrown away."""
    trial = copy.deepcopy(network)
    few = images.batch(torch.arange(min(2, len(images)), device=images.device))
    with placed("objective"), rng.borrowed_global_stream(0, "trial"):
        if objective.follows_gradients:
            check_differentiable(trial.eval(), few, who=name_of(objective), connected=True)
        with torch.no_grad():
            objective.check_model(trial.train(), few)


def _judge(plan: Training, network: nn.Module, held_out: Any, seed: int) -> HeldOut | None:
    """Who says which epoch is best, where that one is kept."""
    if plan.keep != "best":
        if held_out is not None:
            raise RequestError("nothing is done with it unless training={'keep': 'best'}", place=("held_out",))
        return None
    if held_out is None:
        raise RequestError("the best epoch is told by clean images that are not trained on: give them as `held_out`",
                           place=("training", "keep"))  # fmt: skip
    with placed("held_out"):
        pair = held_out if isinstance(held_out, tuple) and len(held_out) == 2 else (held_out, None)
        x, y = pair
        floats, classes = floats_for(network, x, y, seed)
        return HeldOut(plan.objective, network, as_set(floats, classes), seed=seed)
