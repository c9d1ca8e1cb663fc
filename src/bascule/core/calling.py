"""What happens when a component is called like a function: the verb of its kind runs it, with all its guarantees.

A room of components knows no verb, since these lie above it. The package says once which verb there is for each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Verb = Callable[..., Any]
_find: list[Callable[[str], Verb]] = []


def find_verbs_with(find: Callable[[str], Verb]) -> None:
    """Say how the verb of a kind of component (`attack`, `filter` ...) is found; it is asked when one is called."""
    _find[:] = [find]


def verb_of(kind: str) -> Verb:
    """What runs components of this kind on what somebody has in Python: model, x, y, component and keywords."""
    return _find[0](kind)
