"""What several filters' rules are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bascule.core.images import Images
from bascule.core.statistics import CONSISTENCY, deviations

UNLIKELY = 7.389
"""e squared: from this anomaly index on, SCAn and Beatrix call a class infected."""


def highest(score: Tensor, count: int) -> Tensor:
    """bool, shape (N,): the `count` highest scores; of equal ones the earlier."""
    chosen = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    chosen[score.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def note_left_out(images: Images, labels: Sequence[int], why: str) -> tuple[str, ...]:
    """A note that these classes lose no image whatever is in them; none where there are no such classes."""
    if not labels:
        return ()
    named = ", ".join(f"{label} ({images.classes[label]})" for label in labels[:5])
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    present = len(images.labels.unique())
    return (f"{len(labels)} of {present} classes cannot lose any image, {why}: {named}{more}",)


def small_classes(images: Images, least: int) -> list[int]:
    """Labels that occur, but less often than `least` times."""
    counts = images.labels.bincount()
    return ((counts > 0) & (counts < least)).nonzero().squeeze(1).tolist()


def anomaly_index(values: Tensor) -> Tensor:
    """Distance above the median in robust standard deviations (1.4826 x the median absolute deviation), signed.

    Values that do not vary around their median get 0 at the median and very large numbers elsewhere.
    """
    median, _, mad = deviations(values)
    return (values - median) / (CONSISTENCY * mad).clamp_min(1e-6 * (median.abs() + 1e-6))
