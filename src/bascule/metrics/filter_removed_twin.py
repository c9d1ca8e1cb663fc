"""What a filter removes where there is nothing to find."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics.contract import NumberOfTwin
from bascule.metrics.filter_removed_benign import FilterRemovedBenign


@component
class FilterRemovedTwin(NumberOfTwin):
    """The control: share of the training images that the filter removes judging the twin, trained without poison."""

    title = "Removed from twin"
    better = "lower"
    metric = FilterRemovedBenign()
