"""Robust accuracy when suspects are refused and the attacker knows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.refusing import made_of, withstood


@component
class RobustAccuracyEvaded(Metric):
    """Robust accuracy with a detector that the attacker knows: as `robust-accuracy-detected`, where the perturbation is
    the first attack's own or one that also lowers the suspicion, whichever is wrong and not refused.

    In the ball of that attack, which must have one; on the first of the images alone, since the search is dear.
    """

    title = "Robust accuracy, evaded"
    better = "higher"
    needs = ("detect", "attack")

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return withstood(outcomes, "evading")

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return made_of(outcomes, "evading")
