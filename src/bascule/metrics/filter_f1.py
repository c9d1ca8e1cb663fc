"""Precision and recall of a filter in one number."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import AIM, Estimate, Number, Outcomes


@component
class FilterF1(Number):
    """F1 score of a filter's rule: harmonic mean of `filter_precision` and `filter_recall`; 0 when it finds nothing."""

    title = "Filter F1"
    better = "higher"
    needs = ("inspect", AIM)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        judgement = outcomes.judgement
        if judgement is None or not judgement.poisoned.any():
            return None
        hits = int((judgement.removed & judgement.poisoned).sum())
        return Estimate(2 * hits / int(judgement.removed.sum() + judgement.poisoned.sum()), len(judgement.removed))
