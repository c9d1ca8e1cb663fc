"""Whether a filter ranks poisoned images above clean ones."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import AIM, Estimate, Number, Outcomes
from bascule.metrics.ranking import auroc


@component
class FilterAuroc(Number):
    """AUROC of a filter's score over the training set: how often a poisoned image is more suspicious than a clean one.

    0.5 is chance, whatever the share of poison. Interval over images: Newcombe 2006.
    """

    title = "Filter AUROC"
    better = "higher"
    needs = ("inspect", AIM)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        judgement = outcomes.judgement
        return None if judgement is None else auroc(judgement.score, judgement.poisoned)
