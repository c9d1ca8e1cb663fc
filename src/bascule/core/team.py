"""Processes that do one piece of work together, each its share of it: one of them, or several that torchrun started."""

from __future__ import annotations

import os
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

from bascule.core.errors import RequestError

T = TypeVar("T")

_PATIENCE = timedelta(days=14)
"""How long one may wait for the others, which may have an evaluation of hours to do. One that has gone is noticed at
once: its connections close."""


class LostError(Exception):
    """Another process of the team cannot be reached any more."""

    def __init__(self, why: str) -> None:
        super().__init__(f"another of the processes that work together has gone ({why})")


@dataclass(frozen=True)
class Team:
    """The processes that work together, seen from one of them. All of them call the same methods in the same order.

    What goes wrong inside `first`, `each` and `alike` goes wrong in all of them alike, with the same error, so that
    all go on in step (`is_common`). Any other error is one process's own: it must end that process, whose end the
    others notice.
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

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives to the first process, which alone does it, to all of them; tensors on the CPU elsewhere."""
        if self.size == 1:
            return work()
        given, failure = _tried(work) if self.leads else (None, None)
        told, failure = self.agreed((tree_map(_on_cpu, given), failure))
        if failure is not None:
            raise _common(failure)
        return given if self.leads else told  # type: ignore[return-value]

    def each(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives to each process, in the order of their numbers, to all of them; on the CPU."""
        if self.size == 1:
            return [work()]
        outcomes = self.gather(_tried(work))
        failures = {rank: failure for rank, (_, failure) in enumerate(outcomes) if failure is not None}
        if failures:
            rank, failure = next(iter(failures.items()))
            raise _common(failure if len(failures) == self.size else _of_one(failure, rank, self.size))
        return [given for given, _ in outcomes]  # type: ignore[misc]

    def alike(self, work: Callable[[], T]) -> T:
        """What `work` gives to this process; each does it for itself, and where one fails, all do."""
        own: list[T] = []
        self.each(lambda: own.append(work()))
        return own[0]

    def is_common(self, error: BaseException) -> bool:
        """Whether an error is raised in all processes alike, as far as that is known."""
        return self.size == 1 or getattr(error, "in_all_processes", False)


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
        raise LostError(str(error).partition("\n")[0]) from error


def _tried(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What it gives, or its failure in a form that can be sent."""
    try:
        return work(), None
    except LostError:
        raise
    except (Exception, SystemExit) as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever somebody's own class does
            return None, RuntimeError(f"{type(error).__name__}: {error}")
        return None, error


def _of_one(failure: BaseException, rank: int, size: int) -> BaseException:
    """The failure of one process, as the others tell it."""
    which = f"in process {rank + 1} of {size}"
    if isinstance(failure, RequestError):
        return RequestError(f"{which}: {failure.problem}", place=failure.place, key=failure.key)
    other = RuntimeError(f"{which}: {failure or type(failure).__name__}")
    other.__cause__ = failure
    return other


def _common(failure: BaseException) -> BaseException:
    failure.in_all_processes = True  # type: ignore[attr-defined]
    return failure


def started_together() -> bool:
    """Whether torchrun, or what sets the same variables, has started several processes of this command."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


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
