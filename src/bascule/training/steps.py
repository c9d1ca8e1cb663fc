"""The steps of a training, one by one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.ahead import Ahead
from bascule.core.gradients import check_follows
from bascule.core.images import Images
from bascule.training.average import Average
from bascule.training.contract import Course, Objective
from bascule.training.following import Following, orders
from bascule.training.settings import Training


class Steps:
    """The steps of a training, each decided by its number, so that they can be taken up anywhere."""

    def __init__(self, model: nn.Module, images: Images, training: Training, *, seed: int) -> None:
        self.model, self.images, self.training, self.seed = model, images, training, seed
        self.per_epoch = training.steps_per_epoch(len(images))
        self.total = self.per_epoch * training.epochs
        self.optimizer = training.make_optimizer(model)
        self.generator = torch.Generator(device=images.device)
        self.average = None if training.ema is None else Average(model, training.ema)
        self.objective = training.objective
        course = training.objective
        self.course = Following(course, images, training.epochs, seed) if isinstance(course, Course) else None
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
        index = self.prepare(step)
        x = self.ahead.batch(step, index)
        return self.descend(net, x, self.images.labels[index], progress=step / self.total)

    def prepare(self, step: int) -> Tensor:
        """What of a step is not the device's work: learning rate and seeds; the numbers of its images."""
        lr = self.lr(step)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:  # rounded as in a tensor, so that both ways end in the same bytes
                group["lr"] = float(np.float32(lr)) if group.get("fused") else lr
        number = rng.derive(self.seed, "step", step)
        self.generator.manual_seed(number)
        rng.seed_global(number, self.images.device)  # dropout; the caller puts the global stream back
        places = self._batch(step)
        if self.course is not None:
            self.objective = self.course.at(places, step // self.per_epoch + 1)
        return places

    def descend(self, net: nn.Module, x: Tensor, y: Tensor, *, progress: float) -> Tensor:
        """The rest of a prepared step: the same operations each time, as far as the objective's are (`steady_from`)."""
        x = self.training.augment.apply(x, generator=self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        with self._objective(net, x, y, progress) as objective:
            loss = objective.loss(net, x, y, progress=progress, generator=self.generator)
            check_follows(loss)
            loss.backward()
        if self.training.clip_norm is not None:
            wanted = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(wanted, self.training.clip_norm)
        self.optimizer.step()
        return loss.detach()

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

    def _known(self, step: int) -> Tensor | None:
        """The same of a step to come, on the CPU; None where a course has yet to choose, and after the last."""
        epoch, places = self._places(step)
        if step >= self.total or (epoch not in self._orders and self.course is not None):
            return None
        if epoch not in self._orders:
            self._orders[epoch] = self._order(epoch)
        return self._orders[epoch].on_cpu[places]

    def _places(self, step: int) -> tuple[int, slice]:
        """The epoch of a step, from 0, and its part of the epoch's order."""
        epoch, place = divmod(step, self.per_epoch)
        size = min(self.training.batch_size, len(self.images))
        return epoch, slice(place * size, (place + 1) * size)

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
