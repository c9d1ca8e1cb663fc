"""How much poison there is to find."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Number, Outcomes


@component
class FilterBaseRate(Number):
    """Poisoned share of the training set: what `filter_precision` and `filter_average_precision` are at chance."""

    title = "Poisoned share"
    better = "lower"
    needs = ("inspect",)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        judgement = outcomes.judgement
        if judgement is None:
            return None
        known = float(judgement.poisoned.mean())
        return Estimate(known, len(judgement.poisoned), (known, known))
