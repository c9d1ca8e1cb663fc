"""Whether a detector ranks inputs that carry the trigger and a perturbation above clean ones."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Number, Outcomes
from bascule.metrics.refusing import detection_auroc


@component
class DetectAurocBoth(Number):
    """AUROC of a test-time detector on triggered images that the first attack has pushed further to the target, of
    those that reach it, against all test images as they are.

    The attacker knows nothing of the detector. 0.5 is chance. Interval over images: Newcombe 2006.
    """

    title = "Detector AUROC, both"
    better = "higher"
    needs = ("detect", "triggered", "attack")

    def number(self, outcomes: Outcomes) -> Estimate | None:
        return detection_auroc(outcomes, "both")
