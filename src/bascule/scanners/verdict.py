"""From a value per class to a verdict: how far a class stands out from the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bascule.core.images import Images
from bascule.core.statistics import CONSISTENCY, deviations
from bascule.scanners.contract import Scan
from bascule.scanners.inversion import Inverted

_LEAST_SPREAD = 0.01
"""Share of the median that counts as no difference: where most values are equal, rounding must not stand out."""
_SPREAD_OF_BOUNDS = 0.25
"""The same where the median is only a bound: a class must need less than half of what is not enough for most."""


def mad_index(values: Tensor, *, largest: float = math.inf) -> Tensor:
    """How many deviations each value lies below the median: (median - value) / (1.4826 * MAD), Wang et al. 2019, V-B.

    Negative above the median: only small values are suspicious. The deviation is taken to be at least a hundredth of
    the median, and a quarter of it where the median is `largest`, so the index is finite.

    Args:
        values: Floats, shape (K,); NaN where a class was not examined, which gives NaN and is left out of the median.
        largest: A value that stands for `this or more`.
    """
    median, _, mad = deviations(values)
    share = torch.where(median >= largest, _SPREAD_OF_BOUNDS, _LEAST_SPREAD)
    return (median - values) / torch.maximum(
        CONSISTENCY * mad, (share * median.abs()).clamp_min(torch.finfo(values.dtype).tiny)
    )


def verdict(
    inverted: Inverted, labels: Tensor, images: Images, *, threshold: float, largest: float, assumed: int | None = None
) -> Scan:
    """The scan that follows from the sizes of inverted triggers.

    Args:
        inverted: The triggers of the classes `labels`.
        labels: int64, shape (k,).
        images: The defender's images.
        threshold: Anomaly index above which a class is a suspect.
        largest: The size of a trigger that replaces everything. A picture of the class itself is such a trigger, so
            this bounds the size where the wanted success was not reached.
        assumed: The class that is taken for the target untested.
    """

    def for_all(values: Tensor, missing: float = torch.nan) -> Tensor:
        everything = torch.full((len(images.classes), *values.shape[1:]), missing, device=values.device)
        everything[labels] = values.to(everything)
        return everything

    size = for_all(torch.where(inverted.reached, inverted.drawn.size, largest))
    return Scan(
        anomaly=mad_index(size, largest=largest) if assumed is None else torch.full_like(size, torch.nan),
        threshold=threshold,
        pattern=for_all(inverted.drawn.pattern),
        mask=for_all(inverted.drawn.mask),
        details={
            "size": size,
            "reached": for_all(inverted.reached),
            "cost": for_all(inverted.cost),
            "steps": for_all(inverted.steps, 0.0),
        },
        assumed=assumed,
    )
