"""Processes that do one piece of work together, each its share of it: one of them, or several that torchrun started."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map

from bascule.core.errors import LostError, RequestError
from bascule.core.host import started_together

T = TypeVar("T")

_PATIENCE = timedelta(days=14)
"""How long one may wait for the others, which may have an evaluation of hours to do. One that has gone is noticed at
once: its connections close."""


@dataclass(frozen=True)
class Team:
    """The processes that work together, seen from one of them. All of them call the same methods in the same order.

    What goes wrong inside `share`, `alike` and `first` goes wrong in all of them, so that they stay in step. Any other
    error is one process's own: it must end that process, whose end the others notice.
    """

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """How many there are."""

    @property
    def leads(self) -> bool:
        """Whether this is the one that keeps, tells and prints."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, all in one exchange for each type of numbers.

        Floats of 16 bits are summed in 32, whole numbers and truths in 64. The sums are the same bytes in every
        process. The tensors are on one device.

        Raises:
            LostError: A process has gone.
        """
        if self.size == 1:
            return
        for kind in dict.fromkeys(_summed_in(tensor.dtype) for tensor in tensors):
            parts = [tensor for tensor in tensors if _summed_in(tensor.dtype) == kind]
            flat = torch.cat([part.reshape(-1).to(kind) for part in parts])
            with _reaching():
                dist.all_reduce(flat)
            for part, summed in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
                part.copy_(summed.view_as(part))

    def gather(self, value: T) -> list[T]:
        """What each process gives, in the order of their numbers, to all of them; on the CPU, as it is packed.

        Raises:
            LostError: A process has gone.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _reaching():
            dist.all_gather_object(values, value)
        return values

    def agreed(self, value: T) -> T:
        """What the first process gives, to all of them.

        Raises:
            LostError: A process has gone.
        """
        if self.size == 1:
            return value
        box = [value if self.leads else None]
        with _reaching():
            dist.broadcast_object_list(box, src=0)
        return value if self.leads else box[0]  # type: ignore[return-value]

    def takes(self, number: int) -> bool:
        """Whether this process does that piece of work, of pieces that are counted from 0 and dealt out in turn."""
        return number % self.size == self.rank

    def share(self, work: Callable[[], T]) -> list[T]:
        """What each process makes of its part of some work, in the order of their numbers, to all of them; on the CPU.

        If one cannot do its part, all raise, so that nobody waits for it. Work may share parts of its own, and meet
        the others in no other way.

        Raises:
            Exception: That of the first process that could not. In the others the same, where all of them failed or it
                is a RequestError, else a RuntimeError that says which process it was.
            LostError: A process has gone.
        """
        return self._tried(work, alike=False)

    def alike(self, work: Callable[[], T]) -> T:
        """What `work` gives to this process: each does it for itself, and if one cannot, all raise as for `share`."""
        own: list[T] = []
        self.share(lambda: own.append(work()))
        return own[0]

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives to the first process, which alone does it, to all of them; on the CPU in the others.

        Raises:
            Exception: What the work raises, in all of them the same.
            LostError: A process has gone.
        """
        if self.size == 1:
            return work()
        given: list[T] = []
        self._tried(lambda: given.append(work()) if self.leads else None, alike=True)
        told = self.agreed(tree_map(_on_cpu, given))
        return given[0] if self.leads else told[0]

    def is_common(self, error: BaseException) -> bool:
        """Whether all processes raise an error together, as far as that is known; where not, this one must end."""
        return self.size == 1 or hasattr(error, _COMMON)

    def _tried(self, work: Callable[[], T], *, alike: bool) -> list[T]:
        if self.size == 1:
            return [work()]
        made: list[T] = []
        failure: BaseException | None = None
        try:
            made.append(work())
        except (Exception, SystemExit) as error:  # work may be somebody's model, which raises anything
            if isinstance(error, LostError) or self.is_common(error):
                raise
            failure = error
        said = self.gather((made, _sendable(failure)))
        failures = {rank: error for rank, (_, error) in enumerate(said) if error is not None}
        if not failures:
            return [value for values, _ in said for value in values]
        rank, told = next(iter(failures.items()))
        if rank == self.rank and failure is not None:
            told = failure
        elif not (alike or len(failures) == self.size or isinstance(told, RequestError)):
            told = RuntimeError(f"process {rank} of {self.size}: {type(told).__name__}: {told}")
        setattr(told, _COMMON, True)
        raise told


_COMMON = "in_all_processes"
"""Marks an error that all processes raise together."""

ALONE = Team()
"""One process by itself."""


def _summed_in(kind: torch.dtype) -> torch.dtype:
    if kind.is_floating_point or kind.is_complex:
        return torch.promote_types(kind, torch.float32)
    return torch.int64


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


@contextmanager
def _reaching() -> Iterator[None]:
    """An exchange with the others."""
    try:
        yield
    except RuntimeError as error:
        raise LostError("another of the processes that work together has gone") from error


def _sendable(error: BaseException | None) -> BaseException | None:
    """An error in a form that can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever somebody's own class does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Meet the others that torchrun started, inside the block; a team of one where it started none.

    Where the process group is there already, made by a script of one's own, the team is that group.

    Args:
        device: That of this process: on CUDA they exchange numbers by NCCL, else by Gloo.
    """
    if dist.is_available() and dist.is_initialized():
        yield Team(dist.get_rank(), dist.get_world_size())
        return
    if not started_together():
        yield Team()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    team = Team(dist.get_rank(), dist.get_world_size())
    yield team
    # Not after an error, when another may wait for what never comes: the end of this process closes its connections.
    team.gather(None)
    dist.destroy_process_group()
