"""Attack success rate of the backdoor when suspects are refused and the attacker knows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.refusing import made_of, undetected


@component
class AsrEvaded(Metric):
    """ASR of an attacker who knows the detector: share of triggered test images whose label is not the target that
    are taken for the target and not refused, at the threshold for 5 % false alarms, as they are or once perturbed.

    The perturbation stays in the ball of the study's first attack, which must have one, and is that attack's own or one
    that also lowers the suspicion. On the first of the images alone, since the search is dear.
    """

    title = "ASR, evading detector"
    better = "lower"
    needs = ("detect", "triggered", "attack")

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return undetected(outcomes, "both_evading")

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return made_of(outcomes, "both_evading") & outcomes.meant
