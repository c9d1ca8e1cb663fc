"""Share of triggered test images still given their true label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class TriggeredAccuracy(Metric):
    """Accuracy on triggered images whose label is not the target, against their true labels.

    With `asr` it says what a trigger does when it does not succeed: 1 - asr - triggered_accuracy is plain damage.
    """

    title = "Triggered accuracy"
    better = "higher"
    needs = ("triggered",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.triggered is None or outcomes.aimed is None:
            return None
        counted = self.counted(outcomes)
        return outcomes.triggered[counted] == outcomes.label[counted]

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return outcomes.meant
