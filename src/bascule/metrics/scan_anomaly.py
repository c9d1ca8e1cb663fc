"""How far a class stands out to a scanner."""

from __future__ import annotations

import numpy as np

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Number, Outcomes


@component
class ScanAnomaly(Number):
    """Highest anomaly index over the classes: how far the most suspicious one stands out."""

    title = "Anomaly index"
    unit = "index"
    better = "higher"
    needs = ("scan",)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        verdict = outcomes.verdict
        if verdict is None or np.isnan(verdict.anomaly).all():
            return None
        return Estimate(float(np.nanmax(verdict.anomaly)), len(verdict.anomaly))
