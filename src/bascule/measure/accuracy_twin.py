"""What the recipe is worth without any poison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.measure import Metric, Outcomes


@component
class AccuracyTwin(Metric):
    """The control: `accuracy` of the twin, trained with the same recipe and seed on the unpoisoned data.

    What the poison costs is the distance to `accuracy`; what a repair costs on a clean model, that between its row and
    the row without it.
    """

    title = "Accuracy of twin"
    better = "higher"

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return None if outcomes.twin_clean is None else outcomes.twin_clean == outcomes.label
