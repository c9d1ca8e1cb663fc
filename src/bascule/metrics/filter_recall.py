"""Whether a filter removes what is poisoned."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import AIM, Estimate, Number, Outcomes
from bascule.metrics.ranking import recall


@component
class FilterRecall(Number):
    """Recall of a filter: share of the poisoned training images that its rule removes.

    Chance is the share of all images that it removes; read it beside `filter_removed_benign`.
    """

    title = "Filter recall"
    better = "higher"
    needs = ("inspect", AIM)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        judgement = outcomes.judgement
        return None if judgement is None else recall(judgement)
