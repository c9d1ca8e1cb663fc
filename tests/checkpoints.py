"""Checkpoints in memory, for tests of trainings that are killed and continued."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import torch


class Kept:
    """Checkpoints written as a file would be; every one is kept, the last one is loaded."""

    def __init__(self, *states: bytes) -> None:
        self.states = list(states)

    def load(self) -> dict[str, Any] | None:
        return torch.load(BytesIO(self.states[-1]), weights_only=True) if self.states else None

    def save(self, state: dict[str, Any]) -> None:
        file = BytesIO()
        torch.save(state, file)
        self.states.append(file.getvalue())
