"""Share of test images given their label whatever the study's attacks do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.worst import survivors


@component
class RobustAccuracy(Metric):
    """Robust accuracy: share of all test images that are right when clean and under every evasion attack.

    Worst case per image over the study's attacks and their restarts, never an average over attacks.
    """

    title = "Robust accuracy"
    better = "higher"
    needs = ("attack",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.clean is None or not outcomes.attacks or len(outcomes.adversarial) < outcomes.attacks:
            return None
        return survivors(outcomes.label, outcomes.clean, outcomes.adversarial)
