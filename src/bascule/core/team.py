"""Processes that do one piece of work together, each its share of it: one of them, or several that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The processes that work together, seen from one of them. All of them call the same methods in the same order."""

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

        The sums are the same bytes in every process.
        """
        if self.size == 1:
            return
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            parts = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([part.reshape(-1) for part in parts])
            dist.all_reduce(flat)
            for part, summed in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
                part.copy_(summed.view_as(part))

    def gather(self, value: T) -> list[T]:
        """What each process gives, in the order of their numbers, to all of them; on the CPU, as it is packed."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def agreed(self, value: T) -> T:
        """What the first process gives, to all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def started_together() -> bool:
    """Whether torchrun, or what sets the same variables, has started several processes of this command."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Meet the others that torchrun started, inside the block; a team of one where it started none.

    Args:
        device: That of this process: on CUDA they exchange numbers by NCCL, else by Gloo.
    """
    if not started_together():
        yield Team()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
