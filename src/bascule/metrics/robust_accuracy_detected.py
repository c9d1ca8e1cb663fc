"""Robust accuracy when suspects are refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.refusing import made_of, withstood


@component
class RobustAccuracyDetected(Metric):
    """Robust accuracy with a detector: share of test images that are right and not refused as they are and, under
    the study's first attack, right or refused; at the threshold for 5 % false alarms.

    A detector that refuses everything has none (Tramer 2022, Detecting Adversarial Examples Is (Nearly) As Hard As
    Classifying Them). The attacker does not know the detector here: see `robust-accuracy-evaded`.
    """

    title = "Robust accuracy, detecting"
    better = "higher"
    needs = ("detect", "attack")

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return withstood(outcomes, "adversarial")

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return made_of(outcomes, "adversarial")
