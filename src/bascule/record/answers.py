"""What one model answered to the questions asked of it, whether kept on disk or in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.metrics.contract import Labels

Radii = NDArray[np.float64]
Column = Labels | Radii


@dataclass(frozen=True)
class Finding:
    """An answer that is not one value per test image."""

    arrays: dict[str, NDArray[Any]]
    info: dict[str, Any]
    """Kind, settings, seconds, and numbers of its own."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of one model on N test images, each under the key of its question."""

    id: Labels
    """Of the images, shape (N,)."""
    label: Labels
    """The true labels, shape (N,)."""
    predictions: Mapping[str, Labels] = field(default_factory=dict)
    """Predicted labels, shape (N,); MISSING where not evaluated."""
    radii: Mapping[str, Radii] = field(default_factory=dict)
    """Certified radii, shape (N,); NaN where not evaluated."""
    findings: Mapping[str, Finding] = field(default_factory=dict)
    """Answers that are not one value per image."""
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What is kept beside each answer: kind, settings, seconds, signs."""

    def at(self, places: NDArray[np.intp]) -> Answers:
        """The answers on some of the images."""
        return Answers(
            id=self.id[places],
            label=self.label[places],
            predictions={key: values[places] for key, values in self.predictions.items()},
            radii={key: values[places] for key, values in self.radii.items()},
            findings=self.findings,
            notes=self.notes,
        )
