"""Whether the model looks at the trigger."""

from __future__ import annotations

import numpy as np

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Number, Outcomes
from bascule.metrics.interval import student_t


@component
class TriggerAttention(Number):
    """Trigger attention: share of the first heat map's heat, for the target class, that lies on the trigger's pixels.

    Mean over triggered test images whose label is not the target.

    High when the answer rests on the trigger. Compare models on the same trigger only.
    """

    title = "Trigger attention"
    better = "lower"
    needs = ("explain", "triggered")

    def number(self, outcomes: Outcomes) -> Estimate | None:
        if outcomes.attention is None:
            return None
        known = outcomes.attention[~np.isnan(outcomes.attention)]
        if len(known) < 2:
            return None
        return Estimate(float(known.mean()), len(known), student_t(known.tolist()))
