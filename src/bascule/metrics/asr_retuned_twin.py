"""What retuning teaches a model that never had the backdoor."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.asr_retuned import AsrRetuned
from bascule.metrics.contract import OfTwin


@component
class AsrRetunedTwin(OfTwin):
    """The control: `asr-retuned` of the twin, trained further on the same images in the same order.

    What the few poisoned images plant anew in a model that never had the backdoor.
    """

    title = "ASR of twin, retuned"
    better = "lower"
    metric = AsrRetuned()
