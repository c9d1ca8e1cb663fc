"""Whether a scanner tells backdoored models from clean ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bascule.core.catalog import component
from bascule.metrics.contract import OF_TWIN, Estimate, Number, Outcomes
from bascule.metrics.ranking import auroc


@component
class ScanAuroc(Number):
    """AUROC of the scanner's highest anomaly index over the seeds' models against their twins; 0.5 is chance.

    With k seeds there are k models of each kind, so that few seeds say little: see the interval.
    """

    title = "Scan AUROC"
    better = "higher"
    needs = ("scan", f"{OF_TWIN}scan")

    def number(self, outcomes: Outcomes) -> Estimate | None:
        return self.pooled([outcomes])

    def pooled(self, per_seed: Sequence[Outcomes]) -> Estimate | None:
        pairs = [(one.verdict, one.twin.verdict) for one in per_seed if one.twin is not None]
        known = [[one.anomaly, other.anomaly] for one, other in pairs if one is not None and other is not None]
        # Where a class was taken for the target untested there is nothing to rank.
        tested = [pair for pair in known if not any(np.isnan(anomaly).all() for anomaly in pair)]
        scores = np.array([np.nanmax(anomaly) for pair in tested for anomaly in pair])
        return auroc(scores, np.arange(len(scores)) % 2 == 0)
