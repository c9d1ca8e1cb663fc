"""What the trigger does to a model that never saw it."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.asr import Asr
from bascule.metrics.contract import OfTwin


@component
class AsrTwin(OfTwin):
    """The control: `asr` of the twin, trained with the same recipe and seed on the unpoisoned data.

    Near zero when the trigger has no power of its own; otherwise `asr` overstates the backdoor by about this much.
    """

    title = "ASR of twin"
    better = "lower"
    metric = Asr()
