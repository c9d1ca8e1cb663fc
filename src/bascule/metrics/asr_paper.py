"""Attack success rate with the paper's filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class AsrPaper(Metric):
    """Attack success rate as in the paper: over images whose clean PREDICTION is not the target.

    Source: released code of Weng, Lee & Wu 2020 (`attack_success_rate`). Images of the target class that the model gets
    wrong when clean stay in; others it wrongly takes for the target drop out. n therefore depends on the model.

    Source-specific and all-to-all poison, which the paper has not: the images of `asr` whose clean prediction is not
    what they are meant for.
    """

    title = "ASR (paper)"
    better = "lower"
    needs = ("triggered",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.triggered is None or outcomes.clean is None:
            return None
        if outcomes.aims is None:
            return None if outcomes.target is None else outcomes.triggered[self.counted(outcomes)] == outcomes.target
        return outcomes.reached(outcomes.triggered, self.counted(outcomes))

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        if outcomes.aims is None:
            return np.asarray(outcomes.clean != outcomes.target)
        return np.asarray(outcomes.meant & (outcomes.clean != outcomes.aimed))
