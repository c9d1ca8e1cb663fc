"""Whether a scanner names the target."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import AIM, MISSING, Estimate, Number, Outcomes


@component
class ScanFound(Number):
    """Share of the seeds whose model the scanner calls backdoored, with the true target as its first suspect.

    Of all-to-all poison every class is a target.
    """

    title = "Target found"
    yes_or_no = True
    better = "higher"
    needs = ("scan", AIM)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        if outcomes.verdict is None or (outcomes.target is None and outcomes.aims is None):
            return None
        targets = {outcomes.target} if outcomes.aims is None else {aim for aim in outcomes.aims if aim != MISSING}
        return Estimate(float(not targets.isdisjoint(outcomes.verdict.suspects[:1])), 1)
