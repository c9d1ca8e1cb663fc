"""Recovering the smallest trigger for many classes at once: the search behind every scanner that inverts triggers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.gradients import gradients_of
from bascule.core.images import Images
from bascule.scanners.batches import Others, classes_at_once

_BETAS = (0.5, 0.9)
_ROUNDING = 1e-8
_PROGRESS = 0.99
"""A size below this share of the best so far is progress."""


class Drawn(NamedTuple):
    """The triggers that raw values stand for, one per class; all but `pattern` may be differentiated by them."""

    mask: Tensor
    """Floats in [0, 1], k x 1|C x H x W."""
    pattern: Tensor
    """Floats in [0, 1], k x C x H x W."""
    size: Tensor
    """What is to be small, shape (k,)."""
    inner: Tensor | None = None
    """Whatever else `Form.logits` needs."""


class Form(ABC):
    """How a trigger is written as raw values without bounds, and what makes it small."""

    @abstractmethod
    def start(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Raw values for `count` classes, count x P."""

    @abstractmethod
    def draw(self, raw: Tensor) -> Drawn:
        """The triggers behind raw values k x P; differentiable."""

    def logits(self, model: nn.Module, stamped: Tensor, inner: Tensor | None, images: Tensor) -> Tensor:
        """The model's answer to stamped images, k x B x K.

        Args:
            model: The model.
            stamped: k x B x C x H x W.
            inner: Of the triggers.
            images: int64, k x B: positions of the images in the defender's set.
        """
        return model(stamped.flatten(0, 1)).unflatten(0, stamped.shape[:2])


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The settings of the search; what they mean is said in `scan/neural-cleanse`."""

    wanted_success: float = 0.99
    best: Literal["smallest", "loss"] = "smallest"
    first_cost: float = 1e-3
    cost_from_start: bool = False
    cost_factor: float = 1.5
    patience: int = 1
    lr: float = 0.1
    batch_size: int = 32
    look_every: int | None = 10
    stop_after: int | None = 15
    max_looks: int = 100


class Inverted(NamedTuple):
    """The triggers found, in the order of the labels asked for."""

    drawn: Drawn
    reached: Tensor
    """bool, shape (k,): whether the trigger was taken at the wanted success; the last one is given where none was."""
    cost: Tensor
    """Shape (k,): the cost at the end."""
    steps: Tensor
    """int64, shape (k,): gradient steps taken."""


def invert(
    model: nn.Module, images: Images, labels: Tensor, form: Form, schedule: Schedule, *, generator: torch.Generator
) -> Inverted:
    """The smallest trigger of this form for each of these classes.

    As many classes as fit go through the model together; one that is done leaves the batch and the next one takes its
    place, so that no pass is spent on a class that is decided.

    Args:
        model: From [0, 1] images to logits, in eval mode, parameters frozen.
        images: The defender's images.
        labels: int64, shape (k,): the classes.
        form: What the trigger is made of.
        schedule: How it is searched.
        generator: On the device of the images.
    """
    others, search = Others(images), _start(labels, form, schedule, generator)
    slots = classes_at_once(images, schedule.batch_size)
    steps = schedule.look_every or -(-len(images) // schedule.batch_size)
    while len(index := (~search.done).nonzero().flatten()[:slots]):
        part = search.at(index)
        _look(model, others, part, form, schedule, steps, generator)
        search.put(index, part)
    answer = torch.where((search.best < torch.inf).unsqueeze(1), search.answer, search.raw)
    return Inverted(form.draw(answer), search.reached, search.cost, search.steps)


@dataclass
class _Search:
    """Where the search stands for each of k classes; every tensor has k entries in its first dimension."""

    label: Tensor
    raw: Tensor
    """k x P."""
    first: Tensor
    second: Tensor
    """Adam's moments."""
    steps: Tensor
    looks: Tensor
    cost: Tensor
    good: Tensor
    bad: Tensor
    """Looks in a row with, and without, the wanted success since the cost last moved."""
    idle: Tensor
    """Looks since the last progress."""
    raised: Tensor
    lowered: Tensor
    done: Tensor
    reached: Tensor
    """Whether `answer` comes from a look with the wanted success."""
    best: Tensor
    """What `answer` was chosen by: size or loss."""
    answer: Tensor

    def at(self, index: Tensor) -> _Search:
        return _Search(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def put(self, index: Tensor, part: _Search) -> None:
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(part, field.name)

    def descend(self, gradient: Tensor, lr: float) -> None:
        """One step of Adam (Kingma & Ba 2015); every class counts its own steps."""
        self.steps += 1
        steps = self.steps.unsqueeze(1)
        self.first.lerp_(gradient, 1 - _BETAS[0])
        self.second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        scale = (self.second / (1 - _BETAS[1] ** steps)).sqrt_().add_(_ROUNDING).mul_(1 - _BETAS[0] ** steps)
        self.raw = torch.addcdiv(self.raw, self.first, scale, value=-lr)


def _start(labels: Tensor, form: Form, schedule: Schedule, generator: torch.Generator) -> _Search:
    raw = form.start(len(labels), generator=generator)
    counts, numbers = torch.zeros_like(labels), torch.zeros(len(labels), device=labels.device)
    flags = counts.bool()
    return _Search(
        label=labels,
        raw=raw,
        first=torch.zeros_like(raw),
        second=torch.zeros_like(raw),
        steps=counts.clone(),
        looks=counts.clone(),
        cost=numbers + schedule.first_cost * schedule.cost_from_start,
        good=counts.clone(),
        bad=counts.clone(),
        idle=counts.clone(),
        raised=flags.clone(),
        lowered=flags.clone(),
        done=flags.clone(),
        reached=flags.clone(),
        best=numbers + torch.inf,
        answer=raw.clone(),
    )


def _look(
    model: nn.Module,
    others: Others,
    part: _Search,
    form: Form,
    schedule: Schedule,
    steps: int,
    generator: torch.Generator,
) -> None:
    """`steps` steps on the classes of `part`, then the decisions that follow from what was seen."""
    index = others.draw(part.label.expand(steps, -1), schedule.batch_size, generator=generator)
    mean, seen = torch.zeros_like(part.raw), []
    for batch in index:
        mean += part.raw
        seen.append(_step(model, others.images, part, form, schedule.lr, batch))
    answers, losses, sizes = (torch.stack(values) for values in zip(*seen, strict=True))
    size = sizes.mean(0)
    loss = losses.mean((0, 2)) + part.cost * size
    enough = (answers == part.label.unsqueeze(1)).float().mean((0, 2)) >= schedule.wanted_success
    # The mean of the iterates is steadier than the last one, whose success nobody has seen.
    _keep_best(part, enough, *((size, mean / steps) if schedule.best == "smallest" else (loss, part.raw)), schedule)
    _move_cost(part, enough, schedule)
    part.looks += 1
    part.done = part.looks >= schedule.max_looks
    if schedule.stop_after is not None:
        part.done |= (part.idle >= schedule.stop_after) & part.raised & part.lowered


def _step(
    model: nn.Module, images: Images, part: _Search, form: Form, lr: float, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step for every class on its images `index`, k x B.

    Gives what was seen before it: the model's answers and the cross-entropies, k x B, and the sizes, (k,).
    """
    x = images.batch(index.flatten()).unflatten(0, index.shape)
    raw = part.raw.requires_grad_(True)
    drawn = form.draw(raw)
    mask, pattern = drawn.mask.detach(), drawn.pattern.detach()
    leaves = [torch.lerp(x, pattern.unsqueeze(1), mask.unsqueeze(1)).requires_grad_(True)]
    if drawn.inner is not None:
        leaves.append(drawn.inner.detach().requires_grad_(True))
    logits = form.logits(model, leaves[0], leaves[-1] if len(leaves) > 1 else None, index)
    labels = part.label.unsqueeze(1).expand(index.shape)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(index.shape)
    gradient, *inner = gradients_of(losses, leaves, torch.full_like(losses, 1 / index.shape[1]))
    with torch.no_grad():
        # By hand from the stamped images to mask and pattern: autograd would keep and sum two more batches.
        total = gradient.sum(1)
        by_mask = (total * pattern - x.mul_(gradient).sum(1)).sum_to_size(mask.shape)
    back = [(drawn.mask, by_mask), (drawn.pattern, total * mask), (drawn.size, part.cost)]
    back += [(drawn.inner, inner[0])] if drawn.inner is not None else []
    values, gradients = zip(*(pair for pair in back if pair[0].requires_grad), strict=True)
    (by_raw,) = torch.autograd.grad(values, raw, gradients)
    with torch.no_grad():
        part.raw = raw.detach()
        part.descend(by_raw, lr)
        return logits.argmax(2), losses.detach(), drawn.size.detach()


def _keep_best(part: _Search, enough: Tensor, value: Tensor, candidate: Tensor, schedule: Schedule) -> None:
    if schedule.best == "smallest":
        value = torch.where(enough, value, torch.inf)
    better, clearly = value < part.best, value < _PROGRESS * part.best
    part.answer = torch.where(better.unsqueeze(1), candidate, part.answer)
    part.reached = torch.where(better, enough, part.reached)
    part.best = torch.where(better, value, part.best)
    part.idle = torch.where(clearly, 0, part.idle + part.best.isfinite())


def _move_cost(part: _Search, enough: Tensor, schedule: Schedule) -> None:
    part.good, part.bad = (part.good + 1) * enough, (part.bad + 1) * ~enough
    rise, fall, costs = part.good >= schedule.patience, part.bad >= schedule.patience, part.cost > 0
    part.raised |= rise & costs
    part.lowered |= fall & costs
    raised = torch.where(costs, part.cost * schedule.cost_factor, schedule.first_cost)
    lowered = part.cost / schedule.cost_factor**1.5
    part.cost = torch.where(rise, raised, torch.where(fall, lowered, part.cost))
    part.good, part.bad = part.good * ~rise, part.bad * ~fall
