"""What a detector refuses of test images as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class DetectFalseAlarms(Metric):
    """Share of test images that a test-time detector refuses as they are, at the threshold that shall refuse 5 %.

    More means that test images are not like the defender's, which set the threshold.
    """

    title = "Detector false alarms"
    better = "lower"
    needs = ("detect",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return None if outcomes.detection is None else outcomes.detection.refused("benign")
