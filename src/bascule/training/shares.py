"""A batch in equal shares, taken one after another or by several processes at the same time: one step all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
        buffers, losses = _Buffers(self._model, self._shares), list[Tensor]()

        def go() -> list[int]:
            for share in self.own:
                if losses:
                    buffers.put_back()
                losses.append(one(share))
                buffers.note(share)
            return [int(p.grad is not None) for p in self._parameters]

        # Before anything is summed, so that what goes wrong in one process stops all of them at the same step; not
        # where the others wait within it.
        own = go() if self._synced else []
        learning = self._team.tally((lambda: own) if self._synced else go, len(self._parameters))
        loss = torch.stack(losses).sum() / self._shares
        self._team.sum([*self._gradients(learning), *buffers.moved, loss])
        buffers.move()
        return loss

    def _gradients(self, learning: Sequence[int]) -> list[Tensor]:
        """One for each parameter that any share learns from; the optimiser leaves the others alone."""
        for p, processes in zip(self._parameters, learning, strict=True):
            if processes and p.grad is None:
                p.grad = torch.zeros_like(p)
        return [p.grad for p in self._parameters if p.grad is not None]


class _Buffers:
    """The buffers of a network in a step, those of one type as one flat tensor; whole numbers and truths as int64."""

    @torch.no_grad()
    def __init__(self, model: nn.Module, shares: int) -> None:
        self._model, self._shares = model, shares
        buffers = dict(model.named_buffers())
        kinds = {name: _counted_in(value) for name, value in buffers.items()}
        self._names = [[name for name in kinds if kinds[name] == kind] for kind in dict.fromkeys(kinds.values())]
        self._shapes = {name: value.shape for name, value in buffers.items()}
        self._before = [self._flat([buffers[name] for name in names]) for names in self._names]
        self.moved = [torch.zeros_like(before) for before in self._before]
        """By how much this process's shares have moved them so far, as it counts."""

    @torch.no_grad()
    def note(self, share: int) -> None:
        """Note by how much a share has moved them."""
        now = dict(self._model.named_buffers())
        for names, before, moved in zip(self._names, self._before, self.moved, strict=True):
            known = self._views(names, before)
            after = self._flat([now[name] if self._fits(name, now) else known[name] for name in names])
            if before.dtype == torch.int64:  # counts, the same in each share
                moved += (after - before) * (share == 0)
            else:  # what stays, also where it is no finite number, must not move by a rounding
                moved += (after - before).masked_fill(after == before, 0) / self._shares

    def put_back(self) -> None:
        """As they were before the step."""
        self._put(self._before)

    def move(self) -> None:
        """By what was summed."""
        self._put([before + moved for before, moved in zip(self._before, self.moved, strict=True)])

    @torch.no_grad()
    def _put(self, flats: Sequence[Tensor]) -> None:
        now = dict(self._model.named_buffers())
        for names, flat in zip(self._names, flats, strict=True):
            views = self._views(names, flat)
            if fitting := [name for name in names if self._fits(name, now)]:
                torch._foreach_copy_([now[name] for name in fitting], [views[name] for name in fitting])

    def _fits(self, name: str, now: Mapping[str, Tensor]) -> bool:
        return name in now and now[name].shape == self._shapes[name]

    def _views(self, names: Sequence[str], flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split([self._shapes[name].numel() for name in names])
        return {name: part.view(self._shapes[name]) for name, part in zip(names, parts, strict=True)}

    @staticmethod
    def _flat(values: Sequence[Tensor]) -> Tensor:
        return torch.cat([value.reshape(-1).to(_counted_in(value)) for value in values])


def _counted_in(buffer: Tensor) -> torch.dtype:
    return buffer.dtype if buffer.is_floating_point() or buffer.is_complex() else torch.int64
