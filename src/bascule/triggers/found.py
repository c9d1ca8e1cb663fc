"""The trigger that a search found, as questions speak of it."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from bascule.core.catalog import Of, component
from bascule.triggers.contract import Found, Searched, Trigger


@component
class FoundTrigger(Trigger):
    """In a question: what test images show of a trigger that some search found. Whoever asks it looks that up."""

    trigger: Annotated[Searched, Of("poison")]
    """The search."""
    key: str
    """Of the question to the proxy that was the search."""

    def loaded(self, what: Found) -> Trigger:
        """The trigger itself."""
        return self.trigger.found(what).at_test

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.trigger.stamp(x, generator=generator)  # refuses

    def check(self, size: tuple[int, int, int]) -> None:
        self.trigger.check(size)
