"""Attack success rate of the backdoor when suspects are refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.refusing import made_of, undetected


@component
class AsrUndetected(Metric):
    """ASR past a detector: share of triggered test images whose label is not the target that are taken for the target
    and not refused by the test-time detector, at its threshold for 5 % false alarms.

    Never above `asr`.
    """

    title = "ASR, undetected"
    better = "lower"
    needs = ("detect", "triggered")

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return undetected(outcomes, "triggered")

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return made_of(outcomes, "triggered") & outcomes.meant
