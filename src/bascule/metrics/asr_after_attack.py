"""Attack success rate of the backdoor on images that were attacked first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import component
from bascule.metrics.contract import Metric, Outcomes


@component
class AsrAfterAttack(Metric):
    """ASR after an attack: share of test images whose label is not the target that are taken for the target once the
    study's first attack has perturbed them and the trigger has been stamped on top.

    Near `asr` when a perturbation that the attacker does not need leaves the trigger alone; the attack moves images
    away from their label, wherever to, and those that the model gets wrong without it are stamped as they are.
    """

    title = "ASR after attack"
    better = "lower"
    needs = ("attack-then-trigger",)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        answers = outcomes.more.get("attack-then-trigger", ())
        if not answers:
            return None
        ((_, prediction),) = answers
        return outcomes.reached(prediction)

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return outcomes.meant
