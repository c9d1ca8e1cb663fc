"""A repair rated by two differences from the model before it."""

from __future__ import annotations

from math import hypot
from typing import ClassVar, Literal

from bascule.core.catalog import component
from bascule.metrics.contract import Estimate, Metric, Number, Outcomes
from bascule.metrics.interval import share_of
from bascule.metrics.paired import paired_samples, score_interval


@component
class Rated(Number):
    """[max(0, what `gain` improves) - max(0, what `price` worsens) + 1] / 2, in [0, 1]; None without a model before.

    Its interval puts those of the two paired differences (`score_interval`) together: their distances, cut at 0 as the
    differences are, are added in squares (MOVER: Zou & Donner 2008).
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    gain: ClassVar[Metric]
    """What the repair is for."""
    price: ClassVar[Metric]
    """What it may cost."""

    def number(self, outcomes: Outcomes) -> Estimate | None:
        if outcomes.before is None:
            return None
        gained = _improved(self.gain, outcomes.before, outcomes)
        paid = _improved(self.price, outcomes.before, outcomes)
        if gained is None or paid is None:
            return None
        won, lost = (max(0.0, gained.value), max(0.0, -paid.value))
        value = (won - lost + 1) / 2
        (gain_low, gain_high), (price_low, price_high) = gained.interval or (0, 0), paid.interval or (0, 0)
        below = hypot(won - max(0.0, gain_low), max(0.0, -price_low) - lost) / 2
        above = hypot(max(0.0, gain_high) - won, lost - max(0.0, -price_high)) / 2
        return Estimate(value, min(gained.n, paid.n), (max(0.0, value - below), min(1.0, value + above)))


def _improved(metric: Metric, before: Outcomes, after: Outcomes) -> Estimate | None:
    """How much better a metric is afterwards, in [-1, 1], with its interval over the images."""
    pair = paired_samples(metric, before, after)
    if pair is None or len(pair[0]) == 0:
        return None
    old, new = pair if metric.better == "higher" else (~pair[0], ~pair[1])
    interval = score_interval(share_of(new & ~old), share_of(old & ~new), len(old))
    return Estimate(share_of(new) - share_of(old), len(old), interval)
