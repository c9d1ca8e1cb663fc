"""Share of test images given their label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class Accuracy(Metric):
    """Clean accuracy: share of all test images, as they are, that are given their label (top-1)."""

    title = "Accuracy"
    better = "higher"

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return None if outcomes.clean is None else outcomes.clean == outcomes.label
