"""Where adversarial images go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import AIM, Metric, Outcomes
from bascule.metrics.worst import worst


@component
class Drift(Metric):
    """Drift: share of the adversarial images that fooled the model which land in the poison's target class.

    Counted are images whose label is not the target, that were right when clean and fooled by an attack (untargeted).
    Compare with `drift_twin`: a backdoor that attracts adversarial images makes the two differ. n depends on the model.
    """

    title = "Drift to target"
    better = "lower"
    needs = ("attack", AIM)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.clean is None or len(outcomes.adversarial) < max(1, outcomes.attacks):
            return None
        last = worst(outcomes.clean, outcomes.adversarial)
        return outcomes.reached(last, self.counted(outcomes))

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        if outcomes.clean is None:
            return np.zeros(len(outcomes.label), dtype=bool)
        wrong = worst(outcomes.clean, outcomes.adversarial) != outcomes.label
        right_before = outcomes.clean == outcomes.label
        return np.asarray(right_before & wrong & outcomes.meant)
