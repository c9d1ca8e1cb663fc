"""How often the trigger moves images that it is not meant to move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class AsrOthers(Metric):
    """ASR on the other classes: share of triggered test images whose label is neither a source class nor the target
    that are taken for the target.

    Of source-specific poison alone: beside a high `asr`, near 0 where the trigger works for the source classes only, as
    it was meant to, and as high as `asr` where it moves everything.
    """

    title = "ASR, other classes"
    better = "lower"
    needs = ("triggered",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.triggered is None or outcomes.aims is None or outcomes.target is None:
            return None
        return outcomes.triggered[self.counted(outcomes)] == outcomes.target

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return ~outcomes.meant & (outcomes.label != outcomes.target)
