"""Attack success rate of the backdoor against an opposing perturbation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.worst import worst


@component
class AsrAway(Metric):
    """ASR that holds: share of triggered test images whose label is not the target that are taken for the target and
    stay so when the study's first attack pushes them away from it.

    Never above `asr`. High when the trigger outweighs any perturbation of the ball.
    """

    title = "ASR, pushed away"
    better = "lower"
    needs = ("triggered", "away")

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.triggered is None or outcomes.away is None:
            return None
        return outcomes.reached(worst(outcomes.triggered, [outcomes.away]))

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return outcomes.meant
