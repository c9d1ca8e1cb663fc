"""Whether what a filter removes is poisoned."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import AIM, Estimate, Number, Outcomes
from bascule.metrics.ranking import precision


@component
class FilterPrecision(Number):
    """Precision of a filter: poisoned share of the training images that its rule removes.

    Chance is `filter_base_rate`. Unknown where nothing is removed or nothing is poisoned.
    """

    title = "Filter precision"
    better = "higher"
    needs = ("inspect", AIM)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        judgement = outcomes.judgement
        return None if judgement is None else precision(judgement)
