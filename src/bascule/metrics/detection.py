"""What a test-time detector says of the inputs that a model meets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FALSE_ALARMS = (0.01, 0.05)
"""Shares of clean inputs that thresholds are set to refuse."""
REFUSING = 0.05
"""The one of them at which metrics refuse inputs."""
SORTS = ("benign", "triggered", "adversarial", "both", "evading", "both_evading")
"""Sorts of inputs: test images as they are; with the trigger; perturbed by the first attack; with the trigger and
perturbed towards its target; the last two by an attacker who also lowers the suspicion."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Inputs of one sort, made of N test images."""

    suspicion: NDArray[np.float32]
    """Shape (N,); higher is more suspicious; NaN where none was made."""
    prediction: NDArray[np.int64]
    """What the model takes them for, shape (N,); MISSING there."""

    @property
    def made(self) -> NDArray[np.bool_]:
        """Of which images there is one."""
        return ~np.isnan(self.suspicion)

    def at(self, index: NDArray[Any]) -> Inputs:
        """Of some images: a mask, or their places."""
        return Inputs(suspicion=self.suspicion[index], prediction=self.prediction[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """What a detector said of the inputs made of N test images."""

    calm: NDArray[np.float32]
    """What it said of the defender's clean images, rising."""
    thresholds: NDArray[np.float32]
    """Suspicion above which an input is refused, one for each of `FALSE_ALARMS`; infinite where nothing is."""
    sorts: Mapping[str, Inputs]
    """By `SORTS`, those that there are."""

    def refused(self, sort: str, false_alarms: float = REFUSING) -> NDArray[np.bool_]:
        """Which inputs of a sort are refused, shape (N,)."""
        refused: NDArray[np.bool_] = self.sorts[sort].suspicion > self.thresholds[FALSE_ALARMS.index(false_alarms)]
        return refused

    def at(self, index: NDArray[Any]) -> Detection:
        """Of some images: a mask, or their places."""
        sorts = {name: inputs.at(index) for name, inputs in self.sorts.items()}
        return Detection(calm=self.calm, thresholds=self.thresholds, sorts=sorts)
