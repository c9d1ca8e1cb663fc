"""Whether a detector ranks inputs with the trigger above clean ones."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Number, Outcomes
from bascule.metrics.refusing import detection_auroc


@component
class DetectAurocTriggered(Number):
    """AUROC of a test-time detector on triggered images that reach the target, against all test images as they are.

    0.5 is chance. A trigger that reaches the target in no image has none. Interval over images: Newcombe 2006.
    """

    title = "Detector AUROC, triggered"
    better = "higher"
    needs = ("detect", "triggered")

    def number(self, outcomes: Outcomes) -> Estimate | None:
        return detection_auroc(outcomes, "triggered")
