"""What a filter removes where there is nothing to find."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.measure import Estimate, Number, Outcomes
from bascule.measure.ranking import share


@component
class FilterRemovedTwin(Number):
    """The control: share of the training images that the filter removes judging the twin, trained without poison."""

    title = "Removed from twin"
    better = "lower"

    def number(self, outcomes: Outcomes) -> Estimate | None:
        judgement = outcomes.twin_judgement
        return None if judgement is None else share(judgement.removed)
