"""A batch in equal shares, taken one after another or by several processes at the same time: one step all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.team import Team
from bascule.core.text import count
from bascule.training.settings import Training


def check_shares(training: Training, team: Team, size: int | None = None) -> None:
    """See that a batch can be cut into its shares, and that the processes of a team can divide these.

    Args:
        training: What says how many there are.
        team: Who trains together.
        size: Images in a batch, where that is known.

    Raises:
        RequestError: They cannot.
    """
    shares = training.shares
    if size is not None and size % shares:
        raise RequestError(
            f"the whole set of {count(size, 'image')} is one batch, which cannot be cut into "
            f"{count(shares, 'equal share')}",
            place=("shares",),
        )
    if training.sync_batch_norm and shares != team.size:
        raise RequestError(
            f"the shares of a batch know each other's statistics only where each has a process of its own: here are "
            f"{count(shares, 'share')} and {count(team.size, 'process', 'processes')}. Start as many, or leave the "
            "setting out",
            place=("sync_batch_norm",),
        )
    if shares % team.size:
        raise RequestError(
            f"{team.size} processes train together, and each batch has {count(shares, 'share')}, which they cannot "
            f"divide evenly. Set train.shares={team.size} (or a multiple of it): each share of a batch then has draws, "
            "batch-norm statistics and a search for images of its own, and so the model is another one than with "
            f"{shares}",
            place=("shares",),
        )


def check_images(images: Images, team: Team) -> None:
    """See that all processes of a team are given the same set.

    Raises:
        RequestError: They are not.
    """
    if team.size > 1:
        seen = team.gather((len(images), int(images.ids.sum()), int(images.labels.sum())))
        team.share(lambda: _check_equal(seen))


def _check_equal(seen: Sequence[tuple[int, int, int]]) -> None:
    if len(set(seen)) > 1:
        numbers = ", ".join(f"{number:,}" for number, *_ in seen)
        raise RequestError(
            f"the processes that train together were given other images ({numbers}): their data must be the same"
        )


class Shares:
    """What the shares of a step have in common: gradients, buffers and loss, exchanged once for each step.

    Every share starts from the buffers as the last step left them. Afterwards a buffer of floats has moved by the mean
    of what the shares moved it by, and any other buffer is as the first share left it. All the bytes that are sent are
    one number for each parameter and each entry of a buffer.

    Args:
        model: The network.
        parameters: Those that the optimiser moves.
        training: What says how many there are.
        team: Who takes them, each as many.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor], training: Training, team: Team) -> None:
        self._model, self._parameters, self._shares, self._team = model, list(parameters), training.shares, team
        self._synced = training.sync_batch_norm
        own = self._shares // team.size
        self.own = range(team.rank * own, (team.rank + 1) * own)
        """The numbers of the shares that this process takes."""

    def take(self, one: Callable[[int], Tensor]) -> Tensor:
        """Go through the shares.

        Args:
            one: Takes the share of this number: adds its part to the gradients, and gives its loss.

        Returns:
            The mean loss, not waited for. The gradients are those of the mean loss.
        """
        with torch.no_grad():
            before = {name: value.clone() for name, value in self._model.named_buffers()}
        moved = {name: torch.zeros_like(value, dtype=_counted_in(value)) for name, value in before.items()}
        losses: list[Tensor] = []

        def go() -> list[int]:
            for share in self.own:
                if losses:
                    _put(self._model, before)
                losses.append(one(share))
                self._collect(before, moved, share)
            return [place for place, p in enumerate(self._parameters) if p.grad is not None]

        # Before anything is summed, so that what goes wrong in one process stops all of them at the same step; not
        # where the others wait within it.
        used = self._team.gather(go()) if self._synced else self._team.share(go)
        learning = {place for places in used for place in places}
        loss = torch.stack(losses).sum() / self._shares
        self._team.sum([*self._gradients(learning), *moved.values(), loss])
        _put(self._model, {name: _moved(value, moved[name]) for name, value in before.items()})
        return loss

    @torch.no_grad()
    def _collect(self, before: dict[str, Tensor], moved: dict[str, Tensor], share: int) -> None:
        """Note by how much a share has moved the buffers."""
        for name, value in self._model.named_buffers():
            if name not in before or value.shape != before[name].shape:
                continue
            if not value.is_floating_point():
                if share == 0:
                    moved[name] += value.to(moved[name].dtype) - before[name].to(moved[name].dtype)
            else:  # what stays as it is, also where that is no finite number, must not move by a rounding
                step = (value - before[name]).masked_fill(value == before[name], 0)
                moved[name] += step / self._shares

    def _gradients(self, learning: set[int]) -> list[Tensor]:
        """One for each parameter that any share learns from; the optimiser leaves the others alone."""
        for place, p in enumerate(self._parameters):
            if place in learning and p.grad is None:
                p.grad = torch.zeros_like(p)
        return [p.grad for p in self._parameters if p.grad is not None]


def _counted_in(buffer: Tensor) -> torch.dtype:
    return buffer.dtype if buffer.is_floating_point() else torch.int64


def _moved(before: Tensor, by: Tensor) -> Tensor:
    return before + by if before.is_floating_point() else (before.to(by.dtype) + by).to(before.dtype)


@torch.no_grad()
def _put(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, value in model.named_buffers():
        if name in buffers and value.shape == buffers[name].shape:
            value.copy_(buffers[name])
