"""Attack success rate of the backdoor once the model was trained further on a few poisoned images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class AsrRetuned(Metric):
    """ASR after retuning: `asr` of a copy of the model that was trained a little further on few images, a handful of
    them poisoned (the row's `retune`).

    Far above `asr` where a backdoor sleeps, and where a new one is learnt as fast: what the twin learns from the same
    images is `asr-retuned-twin`, and only the distance to it was there before.
    """

    title = "ASR, retuned"
    better = "lower"
    needs = ("retuned-triggered",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        prediction = outcomes.retuned("retuned-triggered", poisoned=True)
        return None if prediction is None else outcomes.reached(prediction)

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return outcomes.meant
