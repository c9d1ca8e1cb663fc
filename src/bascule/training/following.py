"""What the training loop does for a course: keeps its memory, tells it the end of an epoch, draws as it wants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.images import Images
from bascule.core.restore import evaluating, full_precision
from bascule.training.contract import Course, Isolated, Memory, Objective, Samples


class Following:
    """A course in one training.

    Args:
        course: The course.
        images: The training set.
        epochs: Of the training.
        seed: Of the training: the course draws from the streams (seed, "course", epoch), 0 before the first.

    Raises:
        RequestError: The course does not fit the training.
    """

    def __init__(self, course: Course, images: Images, epochs: int, seed: int) -> None:
        self._course, self._images, self._epochs, self._seed = course, images, epochs, seed
        self._memory: Memory = course.begin(images, epochs=epochs, generator=self._generator(0))
        self.drawn: Tensor | None = self._drawn_in(1)
        """Which images the current epoch is drawn from; None for all."""

    def at(self, places: Tensor, epoch: int) -> Objective:
        """The objective of a step of this epoch (from 1) on the images at these places."""
        return self._course.at(Samples(places, epoch, self._epochs, self._memory))

    def lr_share(self, epoch: int) -> float | None:
        """Share of the peak learning rate in this epoch, where the course has one."""
        return self._course.lr_share(epoch=epoch, epochs=self._epochs)

    def end_epoch(self, model: nn.Module, epoch: int) -> dict[str, Any]:
        """Show the model as it is after this epoch; the state then."""
        with (
            torch.no_grad(),
            evaluating(model, freeze=True),
            full_precision(self._images.device),
            rng.borrowed_global_stream(self._seed, "course", epoch),
        ):
            self._course.end_epoch(
                model,
                self._images,
                self._memory,
                epoch=epoch,
                epochs=self._epochs,
                generator=self._generator(epoch),
            )
        self.drawn = self._drawn_in(epoch + 1) if epoch < self._epochs else None
        return self.state()

    def isolated(self) -> Isolated | None:
        """What the course says of single images in the end."""
        return self._course.isolated(self._memory)

    def versions(self) -> dict[str, tuple[int, int]]:
        """Tells, before and after a step, whether it has changed what is remembered."""
        return {name: (id(value), value._version) for name, value in self._memory.items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; what the epoch is drawn from too, since steps may change the memory meanwhile."""
        return {"memory": self._memory, "drawn": self.drawn}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        device, drawn = self._images.device, state["drawn"]
        self._memory = {name: value.to(device) for name, value in state["memory"].items()}
        self.drawn = None if drawn is None else drawn.to(device)

    def _generator(self, epoch: int) -> torch.Generator:
        return rng.stream(self._seed, "course", epoch, device=self._images.device)

    def _drawn_in(self, epoch: int) -> Tensor | None:
        drawn = self._course.drawn_from(self._memory, epoch=epoch, epochs=self._epochs)
        if drawn is not None and not bool(drawn.any()):
            raise ValueError(f"epoch {epoch} is to be drawn from no image at all")
        return drawn


def orders(places: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At least `count` of these places: fresh random orders of all of them, one after the other."""
    passes = -(-count // len(places))
    return torch.cat([places[torch.randperm(len(places), generator=generator)] for _ in range(passes)])
