"""Robust covariance and quantum entropy scores."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt, Interval
from scipy.stats import chi2
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.projection import components, whiten
from bascule.core.statistics import deviations, median_of
from bascule.filters.clusters import LEAST
from bascule.filters.contract import Judged, LayerFilter
from bascule.filters.rules import highest, note_left_out, small_classes

_CANDIDATES = (1, 2, 4, 8, 16, 32, 64, 128)
_FLOOR = 1e-2
_STEPS = 100


@component
class Spectre(LayerFilter):
    """SPECTRE (Hayase et al. 2021): whitening by a robust covariance makes the poison stand out.

    Per class: the features' first k principal coordinates are whitened by an estimate of location and covariance that
    ignores outliers; what is then spread more than 1 is suspicious. The score is the paper's QUE score h^T Q h with
    Q = exp(alpha (S - I) / (|S| - 1)) / trace, S the covariance of the whitened coordinates h. k is the one whose
    removal leaves the rest of the class most spread (k-identification), measured by the mean QUE score; the class with
    the greatest one is the suspect and loses its `factor` x `rate` highest scores.

    Scores are in units of a clean class's variance, so comparable over classes; classes of fewer than 10 images score
    0. One class always loses images: the rule assumes that there is poison.

    Departures: location and covariance are those of the closest 1 - `factor` x `rate` of the class (concentration steps
    of the minimum covariance determinant, Rousseeuw & Van Driessen 1999) instead of the filter of Diakonikolas et al.
    2017; candidates for k are powers of two; variances below a hundredth of the largest are whitened as if they were
    that, since a rarely active unit has next to none.
    """

    rate: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Assumed poisoned share of the poisoned class."""
    factor: Annotated[float, Gt(0)] = 1.5
    """Times the assumed share is removed."""
    dimensions: Annotated[int, Ge(1)] = 64
    """Largest k tried; at most a tenth of the class's images."""
    alpha: Annotated[float, Ge(0)] = 4.0
    """Sharpness of the QUE score: 0 is the plain norm, large values the strongest direction alone."""

    def __post_init__(self) -> None:
        if self.factor * self.rate >= 1:
            raise ValueError(f"factor {self.factor} x rate {self.rate} would remove a whole class; must be below 1")

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        score = torch.zeros(len(images), device=images.device)
        removed = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        suspicion, flat = -math.inf, []
        for label, index, part in self.features(model, images).by_class():
            if len(index) < LEAST:
                continue
            limit = min(self.dimensions, len(index) // 10)
            _, points = components(part.in_memory(), limit, method="pca", generator=generator)
            if points.shape[1] == 0:
                flat.append(label)
                continue
            best = max((self._try(points.double(), k) for k in _sizes(points)), key=lambda f: f.spread)
            score[index] = best.score.float().to(score.device)
            if best.spread > suspicion:
                suspicion = best.spread
                removed.zero_()
                removed[index] = best.removed.to(removed.device)
        notes = note_left_out(images, small_classes(images, LEAST), f"having fewer than {LEAST} images")
        notes += note_left_out(images, flat, "all their features being equal")
        if suspicion > -math.inf and not bool(removed.any()):
            notes += ("no image can be removed: `factor` x `rate` of the suspected class is none; raise `rate`",)
        return Judged(score, removed, notes)

    def _try(self, points: Tensor, k: int) -> _Found:
        """Scores from the first k coordinates, and how spread the class is when seen without the suspects."""
        location, covariance = concentrate(points[:, :k], 1 - self.factor * self.rate)
        score = self._que(whiten(points[:, :k] - location, covariance, floor=_FLOOR))[0]
        removed = highest(score, round(self.factor * self.rate * len(points)))
        kept = points[~removed]
        covariance = torch.cov(kept.T).reshape(points.shape[1], -1)
        return _Found(score, removed, self._que(whiten(points - kept.mean(0), covariance, floor=_FLOOR))[1])

    def _que(self, points: Tensor) -> tuple[Tensor, float]:
        """The QUE score of each whitened point, and their mean."""
        covariance = torch.cov(points.T).reshape(points.shape[1], -1)
        values, vectors = torch.linalg.eigh(covariance)
        # Without a direction of more than unit spread there is nothing to weigh by: all directions count the same.
        excess = float(values[-1]) - 1
        weights = (self.alpha * (values - 1) / excess if excess > 1e-9 else torch.zeros_like(values)).softmax(0)
        score = (points @ vectors).square() @ weights
        return score, float(score.mean())


class _Found(NamedTuple):
    score: Tensor
    removed: Tensor
    spread: float


def concentrate(points: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Location and covariance of the `share` of N x k points that lie closest together.

    Concentration steps (Rousseeuw & Van Driessen 1999) from the points nearest to the median, coordinate by coordinate:
    of all points keep the nearest by Mahalanobis distance, estimate anew, until the same points are kept. The scale is
    that of a normal distribution whose median distance is the points' own.
    """
    location, away, mad = deviations(points)
    distance = (away / mad.clamp_min(1e-30)).square().sum(1)
    count, chosen = max(2, math.ceil(share * len(points))), torch.zeros(0).to(points.device, torch.int64)
    covariance = torch.eye(points.shape[1]).to(points)
    for _ in range(_STEPS):
        before, chosen = chosen, distance.argsort(stable=True)[:count].sort().values
        if torch.equal(before, chosen):
            break
        kept = points[chosen]
        location = kept.mean(0)
        covariance = torch.cov(kept.T, correction=0).reshape(points.shape[1], -1)
        distance = whiten(points - location, covariance, floor=_FLOOR).square().sum(1)
    return location, covariance * (median_of(distance) / float(chi2.ppf(0.5, points.shape[1])))


def _sizes(points: Tensor) -> list[int]:
    return [k for k in _CANDIDATES if k < points.shape[1]] + [points.shape[1]]
