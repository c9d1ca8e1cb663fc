"""Where adversarial images of a model without the backdoor go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.measure import Metric, Outcomes
from bascule.measure.drift import fooled
from bascule.measure.worst import worst


@component
class DriftTwin(Metric):
    """The control: `drift` of the twin, trained with the same recipe and seed on the unpoisoned data."""

    title = "Drift of twin"
    better = "lower"
    needs = ("twin-attack",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.twin_clean is None or len(outcomes.twin_adversarial) < max(1, outcomes.attacks):
            return None
        last = worst(outcomes.twin_clean, outcomes.twin_adversarial)
        return None if outcomes.target is None else last[self.counted(outcomes)] == outcomes.target

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return fooled(outcomes, outcomes.twin_clean, outcomes.twin_adversarial)
