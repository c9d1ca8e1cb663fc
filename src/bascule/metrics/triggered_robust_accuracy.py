"""Robust accuracy on images that carry the trigger."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.worst import survivors


@component
class TriggeredRobustAccuracy(Metric):
    """Robust accuracy of triggered images: share, of those whose label is not the target, that keep their true label
    with the trigger on them and under every evasion attack on top of it.

    What is left when both ends are attacked at once; never above `triggered_accuracy`.
    """

    title = "Triggered robust accuracy"
    better = "higher"
    needs = ("triggered", "attack", "attack-triggered")

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        attacked = outcomes.triggered_adversarial
        if outcomes.triggered is None or outcomes.aimed is None or not outcomes.attacks:
            return None
        if len(attacked) < outcomes.attacks:
            return None
        return survivors(outcomes.label, outcomes.triggered, attacked)[self.counted(outcomes)]

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return outcomes.meant
