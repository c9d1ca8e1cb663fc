"""What stands for a CUDA graph where there is no CUDA: operations are noted down as torch does them, and done again.

Slower than a graph and no use for speed; but as blind as one to whatever Python decides between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
"""Operations whose result Python waits for, or whose shape depends on values: no graph holds them."""


class CannotCaptureError(Exception):
    """A step cannot be captured; says why."""


class _Done(NamedTuple):
    """One operation, with the tensors it read and those it filled."""

    operation: Any
    args: Any
    kwargs: Any
    filled: list[Tensor | None]
    """Its results; None where one lies in the memory of an argument."""


class _Notes(TorchDispatchMode):
    """Notes all operations on tensors, those of backward passes and optimisers too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[_Done] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = operation._schema
        if schema.name.removeprefix("aten::") in _WAITING:
            raise CannotCaptureError(f"something waits for the device ({schema.name})")
        result = operation(*args, **(kwargs or {}))
        within = [one.alias_info is not None for one in schema.returns]
        if schema.is_mutable or not all(within) or not within:  # a view stays a view
            leaves = tree_leaves(result)
            kept = within if len(within) == len(leaves) else [within == [True]] * len(leaves)
            filled = [
                leaf.detach() if isinstance(leaf, Tensor) and not inside else None
                for leaf, inside in zip(leaves, kept, strict=True)
            ]
            self.done.append(_Done(operation, _bare(args), _bare(kwargs or {}), filled))
        return result


def _bare(values: Any) -> Any:
    """The same memory, without the graph of derivatives."""
    return tree_map(lambda value: value.detach() if isinstance(value, Tensor) else value, values)


class Rehearsal:
    """Records by noting down."""

    def warm(self, body: Callable[[], Tensor]) -> Tensor:
        return body()

    def record(self, body: Callable[[], Tensor]) -> Callable[[], Tensor]:
        with _Notes() as notes:
            result = body()

        @torch.no_grad()
        def replay() -> Tensor:
            for operation, args, kwargs, filled in notes.done:
                for place, value in zip(filled, tree_leaves(operation(*args, **kwargs)), strict=True):
                    if place is not None:
                        place.copy_(value)
            return result

        return replay
