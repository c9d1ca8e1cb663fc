"""How well a score separates two groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.metrics.contract import Estimate, Judgement
from bascule.metrics.interval import CONFIDENCE, Interval, quantile, wilson

_HALVINGS = 60


def auroc(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> Estimate | None:
    """Area under the ROC curve: how often a positive scores above a negative, ties half; None without both.

    Its interval is the score interval `auroc_interval`, which has a width also where the groups do not overlap.
    """
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return None
    area = float((ranks(score)[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
    return Estimate(area, len(score), auroc_interval(area, ones, zeros))


def ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Places from 1 up, those of equal values their mean; NaN everywhere where one is NaN.

    As `scipy.stats.rankdata`, which takes half a second to load.
    """
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def auroc_interval(area: float, ones: int, zeros: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of an area under the ROC curve (Newcombe 2006, Statistics in Medicine 25:559, method 5).

    The areas within `quantile` standard errors of the one seen, with the standard error of Hanley & McNeil 1982 at the
    supposed area and both groups' sizes but in the product replaced by their mean.

    Args:
        area: The area seen.
        ones: Positives.
        zeros: Negatives.
        confidence: Probability to hold the true area.
    """

    def end(outside: float) -> float:
        inside = area
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            rest = ((ones + zeros) / 2 - 1) * ((1 - middle) / (2 - middle) + middle / (1 + middle))
            variance = middle * (1 - middle) * (1 + rest) / (ones * zeros)
            if (middle - area) ** 2 > quantile(confidence) ** 2 * variance:
                outside = middle
            else:
                inside = middle
        return outside

    return end(0.0), end(1.0)


def average_precision(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> Estimate | None:
    """Precision averaged over the positives, from the highest score down; equal scores count together.

    Chance is the share of positives. None without a positive.
    """
    if not positive.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last_of_ties = np.append(np.diff(score[order]) != 0, True)
    true_positives, seen = hits[last_of_ties], np.flatnonzero(last_of_ties) + 1
    gained = np.diff(true_positives, prepend=0)
    return Estimate(float((gained * true_positives / seen).sum() / hits[-1]), len(score))


def share(hits: NDArray[np.bool_]) -> Estimate | None:
    """A share of images with Wilson's interval; None without any."""
    if not len(hits):
        return None
    return Estimate(float(hits.mean()), len(hits), wilson(float(hits.mean()), len(hits)))


def precision(judgement: Judgement) -> Estimate | None:
    """Poisoned share of what is removed; None where there is no poison or nothing is removed."""
    return share(judgement.poisoned[judgement.removed]) if judgement.poisoned.any() else None


def recall(judgement: Judgement) -> Estimate | None:
    """Removed share of what is poisoned; None without poison."""
    return share(judgement.removed[judgement.poisoned])
