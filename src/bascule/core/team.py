"""Processes that do one piece of work together, each its share of it: one of them, or several that torchrun started."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map

from bascule.core.errors import LostError, RequestError
from bascule.core.host import started_together

T = TypeVar("T")

_MEETING = timedelta(minutes=30)
"""How long one waits until all have been started."""
_PATIENCE = timedelta(days=14)
"""How long one may wait for the others afterwards, which may have an evaluation of hours to do. One that has gone is
noticed at once: its connections close."""


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
    _ways: _Ways | None = field(default=None, repr=False, compare=False)

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
            alone = len(parts) == 1 and parts[0].dtype == kind and parts[0].is_contiguous()
            flat = parts[0] if alone else torch.cat([part.reshape(-1).to(kind) for part in parts])
            way = self._way(flat.device)
            with _reaching():
                dist.all_reduce(flat, group=way)
            if not alone:
                sums = flat.split([part.numel() for part in parts])
                torch._foreach_copy_(parts, [sum_.view_as(part) for part, sum_ in zip(parts, sums, strict=True)])

    def gather(self, value: T) -> list[T]:
        """What each process gives, in the order of their numbers, to all of them; tensors come on the CPU.

        Raises:
            LostError: A process has gone.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _reaching():
            dist.all_gather_object(values, tree_map(_on_cpu, value), group=self._way())
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
            dist.broadcast_object_list(box, src=0, group=self._way())
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

    def tally(self, work: Callable[[], Sequence[int]], length: int) -> list[int]:
        """The sums, by place, of the numbers that each process's work gives, so many; all raise as for `share`.

        One exchange of a few bytes between processors; nobody waits for a device.
        """
        if self.size == 1:
            return list(work())
        made, failure = self._attempted(work)
        counts = torch.tensor([int(failure is not None), *(made[0] if made else [0] * length)])
        self.sum([counts])
        failed, *sums = counts.tolist()
        if failed:
            self._raise_first(self.gather(_sendable(failure)), failure)
        return sums

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
        made, failure = self._attempted(work)
        said = self.gather((made, _sendable(failure)))
        self._raise_first([error for _, error in said], failure, alike=alike)
        return [value for values, _ in said for value in values]

    def _attempted(self, work: Callable[[], T]) -> tuple[list[T], BaseException | None]:
        """What work gives, or why it does not: what only this process knows."""
        try:
            return [work()], None
        except (Exception, SystemExit) as error:  # work may be somebody's model, which raises anything
            if isinstance(error, LostError) or self.is_common(error):
                raise
            return [], error

    def _raise_first(
        self, said: Sequence[BaseException | None], own: BaseException | None, *, alike: bool = False
    ) -> None:
        """Raise what went wrong in the first process that has something to say, in all of them."""
        failures = {rank: error for rank, error in enumerate(said) if error is not None}
        if not failures:
            return
        rank, told = next(iter(failures.items()))
        if rank == self.rank and own is not None:
            told = own
        elif not (alike or len(failures) == self.size or isinstance(told, RequestError)):
            told = RuntimeError(f"process {rank} of {self.size}: {type(told).__name__}: {told}")
        setattr(told, _COMMON, True)
        raise told

    def _way(self, device: torch.device | None = None) -> Any:
        """The process group by which numbers on that device are exchanged; without one, objects."""
        return None if self._ways is None else self._ways.of(device, self)


class _Ways:
    """The process groups of a team: Gloo for objects and what is on the CPU; for sums on CUDA NCCL, which takes a
    device for each process, and Gloo where some share one."""

    def __init__(self) -> None:
        self.groups = [dist.new_group(backend="gloo", timeout=_PATIENCE)]

    def of(self, device: torch.device | None, team: Team) -> Any:
        if device is None or device.type != "cuda":
            return self.groups[0]
        if len(self.groups) == 1:
            devices = team.gather((socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid)))
            # With its own timeout, of minutes: here nobody waits long, since all have met before by the other.
            alone = len(set(devices)) == len(devices) and dist.is_nccl_available()
            self.groups.append(dist.new_group(backend="nccl") if alone else self.groups[0])
        return self.groups[1]


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
        why = str(error).partition("\n")[0]
        gone = any(word in why.lower() for word in ("closed", "reset", "broken pipe", "refused"))
        raise LostError(
            "another of the processes that work together has gone"
            if gone
            else f"the processes that work together cannot reach each other: {why}"
        ) from error


def _sendable(error: BaseException | None) -> BaseException | None:
    """An error in a form that can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever somebody's own class does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def joined() -> Iterator[Team]:
    """Meet the others that torchrun started, inside the block; a team of one where it started none.

    Where a script of one's own has made a process group, the team is those of that group. They exchange by process
    groups of their own in any case, in which one may wait for days.

    Raises:
        RequestError: They do not meet.
    """
    found = dist.is_available() and dist.is_initialized()
    if not found:
        if not started_together():
            yield Team()
            return
        _meet(os.environ)
    ways = _Ways()
    team = Team(dist.get_rank(), dist.get_world_size(), ways)
    yield team
    # Not after an error, when another may wait for what never comes: the end of this process closes its connections.
    team.gather(None)
    for group in dict.fromkeys(ways.groups) if found else [None]:
        dist.destroy_process_group(group)


def _meet(environment: Mapping[str, str]) -> None:
    try:
        dist.init_process_group("gloo", timeout=_MEETING)
    except (RuntimeError, ValueError) as error:
        place = f"{environment.get('MASTER_ADDR', '?')}:{environment.get('MASTER_PORT', '?')}"
        why = str(error).partition("\n")[0]
        if "remote=[127." in why:
            why += ", which is no other machine: set GLOO_SOCKET_IFNAME to the interface that leads to the others"
        raise RequestError(
            f"the {environment['WORLD_SIZE']} processes that should work together cannot meet at {place}: {why}. Start "
            "them with torchrun, all with the same command, or leave WORLD_SIZE unset for one alone"
        ) from error
