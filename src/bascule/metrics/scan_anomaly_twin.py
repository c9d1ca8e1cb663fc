"""How far a class of a clean model stands out to a scanner."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import NumberOfTwin
from bascule.metrics.scan_anomaly import ScanAnomaly


@component
class ScanAnomalyTwin(NumberOfTwin):
    """The control: highest anomaly index of the twin, which has no backdoor."""

    title = "Anomaly of twin"
    unit = "index"
    better = "lower"
    metric = ScanAnomaly()
