"""What further training on a few poisoned images leaves of accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class AccuracyRetuned(Metric):
    """Accuracy after retuning: of the copy of the model that `asr-retuned` is about, on clean test images.

    Near `accuracy`, or the copy is another model, and its ASR says little of this one.
    """

    title = "Accuracy, retuned"
    better = "higher"
    needs = ("retuned",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        prediction = outcomes.retuned("retuned", poisoned=True)
        return None if prediction is None else prediction == outcomes.label
