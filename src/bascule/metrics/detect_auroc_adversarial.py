"""Whether a detector ranks adversarial inputs above clean ones."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Number, Outcomes
from bascule.metrics.refusing import detection_auroc


@component
class DetectAurocAdversarial(Number):
    """AUROC of a test-time detector on successful adversarial inputs of the first attack, against all test images as
    they are.

    Successful: wrong, of images that are right when clean, as is usual where detectors are compared; what the attack
    proposes where it fails is harmless and does not count. 0.5 is chance. Interval over images: Newcombe 2006.
    """

    title = "Detector AUROC, adversarial"
    better = "higher"
    needs = ("detect", "attack")

    def number(self, outcomes: Outcomes) -> Estimate | None:
        return detection_auroc(outcomes, "adversarial")
