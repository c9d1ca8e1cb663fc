"""The steps of a training, one by one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.ahead import Ahead
from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.core.gradients import check_follows
from bascule.core.images import Images
from bascule.core.returned import returned
from bascule.core.team import ALONE, Team
from bascule.training.average import Average
from bascule.training.contract import Course, Objective
from bascule.training.following import Following, orders
from bascule.training.settings import Training
from bascule.training.shares import Shares, check_images, check_shares


class Steps:
    """The steps of a training, each decided by its number, so that they can be taken up anywhere."""

    def __init__(self, model: nn.Module, images: Images, training: Training, *, seed: int, team: Team = ALONE) -> None:
        self.model, self.images, self.training, self.seed = model, images, training, seed
        self.team = team
        self.size = min(training.batch_size, len(images))
        """Images in a batch."""
        team.share(lambda: check_shares(training, team, self.size))
        check_images(images, team)
        self.per_epoch = training.steps_per_epoch(len(images))
        self.total = self.per_epoch * training.epochs
        self.optimizer = training.make_optimizer(model)
        self.generator = torch.Generator(device=images.device)
        self.average = None if training.ema is None else Average(model, training.ema)
        self.objective = training.objective
        course = training.objective
        self.course = Following(course, images, training.epochs, seed) if isinstance(course, Course) else None
        self.shares = Shares(model, self._parameters, training, self.team) if training.shares > 1 else None
        """What a batch is cut into, where it is."""
        self.ahead = Ahead(images, self._known)
        self._orders: dict[int, _Order] = {}

    def lr(self, step: int) -> float:
        """Learning rate of this step (from 0)."""
        if self.course is not None and (share := self.course.lr_share(step // self.per_epoch + 1)) is not None:
            return self.training.lr * share
        return self.training.lr * self.training.lr_share(step, self.total)

    def take(self, net: nn.Module, step: int) -> Tensor:
        """One step in the order of the study: stamped images, augment, perturb (the objective's), descend.

        Args:
            net: The model, or what stands around it.
            step: Its number, from 0.

        Returns:
            The loss, not waited for.
        """
        index, shares, progress = self.prepare(step), self.shares, step / self.total
        if shares is None:
            x = self.ahead.batch(step, index)
            return self.descend(net, x, self.images.labels[index], progress=progress)
        self.optimizer.zero_grad(set_to_none=True)
        parts = index.chunk(self.training.shares)
        loss = shares.take(lambda share: self._take_share(net, step, share, parts[share]))
        self._move()
        return loss

    def prepare(self, step: int) -> Tensor:
        """What of a step is not the device's work: learning rate and seeds; the numbers of its images."""
        lr = self.lr(step)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:  # rounded as in a tensor, so that both ways end in the same bytes
                group["lr"] = float(np.float32(lr)) if group.get("fused") else lr
        places = self._batch(step)
        self._begin(places, step)
        return places

    def descend(self, net: nn.Module, x: Tensor, y: Tensor, *, progress: float) -> Tensor:
        """The rest of a prepared step: the same operations each time, as far as the objective's are (`steady_from`)."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._differentiate(net, x, y, progress)
        self._move()
        return loss

    def _begin(self, places: Tensor, step: int, *share: str | int) -> None:
        """Set what is drawn from, and the objective, for the images at these places: a batch, or a share of one."""
        number = rng.derive(self.seed, "step", step, *share)
        self.generator.manual_seed(number)
        rng.seed_global(number, self.images.device)  # dropout; the caller puts the global stream back
        if self.course is not None:
            self.objective = self.course.at(places, step // self.per_epoch + 1)

    def _take_share(self, net: nn.Module, step: int, share: int, places: Tensor) -> Tensor:
        """The passes of a share of a step, which draws from (seed, "step", number, "share", share), the first as ever;
        its loss."""
        self._begin(places, step, *(("share", share) if share else ()))
        remembered = None if self.course is None else self.course.versions()
        x = self.ahead.batch(step * len(self._own) + share - self._own.start, places)
        loss = self._differentiate(net, x, self.images.labels[places], step / self.total)
        if self.course is not None and self.course.versions() != remembered:
            raise RequestError(
                f"{name_of(self.training.objective)} remembers something of the images of a step, which the shares of "
                "a batch cannot tell each other: train it with 1",
                place=("shares",),
            )
        return loss

    def _differentiate(self, net: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        """Add the gradients of these images' loss, of their share of it where the batch has several; the loss."""
        x = self.training.augment.apply(x, generator=self.generator)
        with self._objective(net, x, y, progress) as objective:
            loss = objective.loss(net, x, y, progress=progress, generator=self.generator)
            loss = returned(loss, Tensor, who=objective, method="loss")
            check_follows(loss)
            (loss if self.shares is None else loss / self.training.shares).backward()
        return loss.detach()

    def _move(self) -> None:
        """The step itself, by the gradients that are there."""
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.training.clip_norm)
        self.optimizer.step()

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _objective(self, net: nn.Module, x: Tensor, y: Tensor, progress: float) -> AbstractContextManager[Objective]:
        """What the step minimises; inside, the weights are those that it is differentiated for."""
        objective, awp = self.objective, self.training.awp
        if awp is None:
            return nullcontext(objective)
        return awp.around(objective, self.model, net, x, y, progress=progress, generator=self.generator)

    def follow(self, step: int) -> None:
        """What comes after step number `step`, and is no part of it."""
        if self.average is not None:
            self.average.follow(self.model, step)

    def kept(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that would be kept of it now: the averaged ones, where there are any."""
        return nullcontext() if self.average is None else self.average.lent(self.model)

    def _batch(self, step: int) -> Tensor:
        """Numbers of the images of a step."""
        epoch, places = self._places(step)
        self._orders = {known: order for known, order in self._orders.items() if known >= epoch}
        if epoch not in self._orders:
            self._orders = {epoch: self._order(epoch)}
        return self._orders[epoch].on_device[places]

    @property
    def _own(self) -> range:
        """The numbers of the shares that this process takes of a batch."""
        return range(1) if self.shares is None else self.shares.own

    def _known(self, number: int) -> Tensor | None:
        """The same of a share to come, on the CPU, of those that this process takes, counted over the steps; None where
        a course has yet to choose, and after the last."""
        step, share = divmod(number, len(self._own))
        epoch, places = self._places(step)
        if step >= self.total or (epoch not in self._orders and self.course is not None):
            return None
        if epoch not in self._orders:
            self._orders[epoch] = self._order(epoch)
        return self._orders[epoch].on_cpu[places].chunk(self.training.shares)[self._own[share]]

    def _places(self, step: int) -> tuple[int, slice]:
        """The epoch of a step, from 0, and its part of the epoch's order."""
        epoch, place = divmod(step, self.per_epoch)
        return epoch, slice(place * self.size, (place + 1) * self.size)

    def _order(self, epoch: int) -> _Order:
        generator = rng.stream(self.seed, "order", epoch)
        if self.course is None or self.course.drawn is None:
            order = torch.randperm(len(self.images), generator=generator)
        else:
            count = self._places(self.per_epoch - 1)[1].stop
            order = orders(self.course.drawn.nonzero().squeeze(1).cpu(), count, generator)
        return _Order(order, order.to(self.images.device))


class _Order(NamedTuple):
    """Numbers of the images of an epoch, in order."""

    on_cpu: Tensor
    on_device: Tensor
