"""Attack success rate of the backdoor with adversarial help."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.worst import worst


@component
class AsrToward(Metric):
    """ASR with help: share of triggered test images whose label is not the target that are taken for the target as
    they are, or after the study's first attack has pushed them towards it.

    Never below `asr`. What an attacker reaches who may stamp and perturb.
    """

    title = "ASR, pushed to target"
    better = "lower"
    needs = ("triggered", "toward")

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        if outcomes.triggered is None or outcomes.toward is None:
            return None
        return outcomes.reached(worst(outcomes.triggered, [outcomes.toward]))

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return outcomes.meant
