"""What a component's method gave: of the type that its contract says, or whoever wrote it is told."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def returned(found: Any, wanted: type[T], *, who: object, method: str) -> T:
    """What the method of a component gave.

    Raises:
        ValueError: It is of another type: the component breaks its contract.
    """
    if isinstance(found, wanted):
        return found
    forgotten = ": is its `return` missing?" if found is None else ""
    raise ValueError(f"{who!r}: `{method}` gave {type(found).__name__}, and not {wanted.__name__}{forgotten}")
