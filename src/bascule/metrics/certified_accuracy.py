"""Share of test images that no perturbation can change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class CertifiedAccuracy(Metric):
    """Certified accuracy: share of all test images that are right when clean and certified at the radius asked for.

    A lower bound of what any attack in the ball can leave standing, so never above `robust_accuracy` for bounds on the
    model itself; randomised smoothing certifies the smoothed classifier instead, and may exceed it.
    """

    title = "Certified accuracy"
    better = "higher"
    needs = ("certify",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.clean is None or outcomes.certified is None:
            return None
        return (outcomes.clean == outcomes.label) & outcomes.certified
