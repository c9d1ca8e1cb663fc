"""Where adversarial images of a model without the backdoor go."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import OfTwin
from bascule.metrics.drift import Drift


@component
class DriftTwin(OfTwin):
    """The control: `drift` of the twin, trained with the same recipe and seed on the unpoisoned data."""

    title = "Drift of twin"
    better = "lower"
    metric = Drift()
