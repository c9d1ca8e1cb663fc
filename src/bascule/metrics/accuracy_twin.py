"""What the recipe is worth without any poison."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.accuracy import Accuracy
from bascule.metrics.contract import OfTwin


@component
class AccuracyTwin(OfTwin):
    """The control: `accuracy` of the twin, trained with the same recipe and seed on the unpoisoned data.

    What the poison costs is the distance to `accuracy`; what a repair costs on a clean model, that between its row and
    the row without it.
    """

    title = "Accuracy of twin"
    better = "higher"
    metric = Accuracy()
