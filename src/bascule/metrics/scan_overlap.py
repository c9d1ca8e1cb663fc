"""Whether the trigger that a scanner recovers is the true one."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Number, Outcomes


@component
class ScanOverlap(Number):
    """Intersection over union of the mask recovered for the true target and the pixels that the trigger changes."""

    title = "Trigger overlap"
    better = "higher"
    needs = ("scan", "triggered")

    def number(self, outcomes: Outcomes) -> Estimate | None:
        if outcomes.verdict is None or outcomes.verdict.overlap is None:
            return None
        return Estimate(outcomes.verdict.overlap, 1)
