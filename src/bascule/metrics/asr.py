"""Attack success rate of the backdoor, counted by label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class Asr(Metric):
    """Attack success rate: share of triggered test images whose LABEL is not the target that are taken for the target.

    Images of the target class do not count: for them the target is the right answer. Of source-specific poison images
    of the source classes count alone; of all-to-all poison all count, each with the class after its own as its target.
    """

    title = "ASR"
    better = "lower"
    needs = ("triggered",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return None if outcomes.triggered is None else outcomes.reached(outcomes.triggered)

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return outcomes.meant
