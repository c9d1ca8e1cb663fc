"""What a filter costs in clean images."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Number, Outcomes
from bascule.metrics.ranking import share


@component
class FilterRemovedBenign(Number):
    """False-positive rate of a filter: share of the unpoisoned training images that its rule removes."""

    title = "Benign removed"
    better = "lower"
    needs = ("inspect",)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        judgement = outcomes.judgement
        return None if judgement is None else share(judgement.removed[~judgement.poisoned])
