"""Ordinary training."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.training.contract import CrossEntropy


@component
class Standard(CrossEntropy):
    """Cross-entropy on the images as they are: the study's row "None"."""

    @property
    def steady_from(self) -> float | None:
        return 0.0
