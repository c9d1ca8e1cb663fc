"""Accuracy on clean images when suspects are refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.refusing import accepted_and_right


@component
class AccuracyAccepted(Metric):
    """Accuracy with a detector: share of all test images that are right as they are and not refused by the test-time
    detector, at its threshold for 5 % false alarms.

    Never above `accuracy`; what is missing is what the detector costs.
    """

    title = "Accuracy, accepted"
    better = "higher"
    needs = ("detect",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return accepted_and_right(outcomes)
