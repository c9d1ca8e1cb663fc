"""Attack success rate of the backdoor once the model was trained further on clean images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class AsrRetunedClean(Metric):
    """ASR after clean retuning: `asr` of a copy of the model that was trained a little further on few clean images (the
    row's `retune`).

    Above `asr` where plain further training, with no attacker about, wakes a backdoor; far below it where it does as a
    repair.
    """

    title = "ASR, retuned clean"
    better = "lower"
    needs = ("retuned-triggered",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        prediction = outcomes.retuned("retuned-triggered", poisoned=False)
        return None if prediction is None else outcomes.reached(prediction)

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return outcomes.meant
