"""Whether the most suspicious images are the poisoned ones."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import AIM, Estimate, Number, Outcomes
from bascule.metrics.ranking import average_precision


@component
class FilterAveragePrecision(Number):
    """Average precision of a filter's score over the whole training set; chance is `filter_base_rate`."""

    title = "Filter AP"
    better = "higher"
    needs = ("inspect", AIM)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        judgement = outcomes.judgement
        return None if judgement is None else average_precision(judgement.score, judgement.poisoned)
