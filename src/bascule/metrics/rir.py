"""What a repair gives back to triggered images, set against what it takes from accuracy."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics._rating import Rated
from bascule.metrics.accuracy import Accuracy
from bascule.metrics.triggered_accuracy import TriggeredAccuracy


@component
class Rir(Rated):
    """Robust improvement rate: [max(0, rise of RA) - max(0, fall of accuracy) + 1] / 2, against the same model before
    the repair, RA being `triggered_accuracy`.

    1 where every triggered image gets its true label back at no price, 0.5 where nothing is won or lost. Source:
    BackdoorBench (`utils/metric.py`), whose robust accuracy knows triggers and no evasion attack. Of rows with a
    repair.
    """

    title = "RIR"
    gain = TriggeredAccuracy()
    price = Accuracy()
    needs = ("triggered", "before-clean", "before-triggered")
