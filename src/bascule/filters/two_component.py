"""Is a class better explained by two groups than by one?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.features import Features
from bascule.core.images import Images
from bascule.core.projection import components, mean_of, whiten
from bascule.filters.clusters import LEAST, split
from bascule.filters.contract import Judged, LayerFilter
from bascule.filters.rules import UNLIKELY, anomaly_index, note_left_out, small_classes

_FLOOR = 1e-3
"""Smallest variance that is made white, as a share of the largest: others may not vary where a class does."""

_COMPARED = 3
"""Classes without which no distance from the median class means anything."""


@component
class TwoComponent(LayerFilter):
    """A likelihood ratio test of two groups against one in each class, in the manner of SCAn (Tang et al. 2021).

    Features are a class's own vector plus a variation that all classes share. In coordinates where the variation of the
    other classes is white, each class is split in two by k-means. The statistic of a class is the gain in
    log-likelihood per image of two means over one, its anomaly index the distance above the median class in robust
    deviations. Classes beyond `threshold` lose the smaller group.

    Score: the class's anomaly index (0 if negative) x how far the image leans to the smaller group, from -1 to 1.
    Classes of fewer than 10 images score 0.

    Departures: with no clean set, the shared variation is the pooled covariance of all classes but the tested one,
    whose poison would hide itself, within at most `dimensions` principal directions of the variation within classes;
    the smaller group is taken to be the poison, where SCAn asks a clean set. A class with two natural looks (ones with
    and without a foot) stands out as well. With three classes a distance from the median class says little; with fewer
    there is nothing to compare with, so all scores are 0, nothing is removed, and a note says so.
    """

    dimensions: Annotated[int, Ge(1)] = 64
    """Principal directions of the variation within classes that are kept."""
    threshold: Annotated[float, Gt(0)] = UNLIKELY
    """Anomaly index from which a class loses its smaller group (e squared in the paper)."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        within = _WithinClasses(self.features(model, images).in_memory(), len(images.classes))
        _, points = components(within, self.dimensions, method="pca", generator=generator)
        points = points.double()
        total = points.T @ points
        leaning = torch.zeros(len(images), device=images.device)
        second = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        members, gains = [], []
        for label in images.labels.unique().tolist():
            index = (images.labels == label).nonzero().squeeze(1)
            if len(index) < LEAST or len(index) == len(images) or points.shape[1] == 0:
                continue
            own = points[index]
            others = (total - own.T @ own) / (len(images) - len(index))
            clusters = split(whiten(own, others, floor=_FLOOR), generator=generator)
            leaning[index], second[index] = clusters.leaning, clusters.second
            members.append(index)
            gains.append(clusters.explained / 2)
        score, removed = torch.zeros_like(leaning), torch.zeros_like(second)
        notes = note_left_out(images, small_classes(images, LEAST), f"having fewer than {LEAST} images")
        if len(gains) < _COMPARED:
            what = f"{len(gains)} of at least {LEAST} images, with features that vary"
            notes += (f"no image can be removed: {_COMPARED} classes must be compared, and there are {what}",)
        else:
            for index, anomaly in zip(members, anomaly_index(torch.tensor(gains)).tolist(), strict=True):
                score[index] = max(0.0, anomaly) * leaning[index]
                removed[index] = second[index] & (anomaly > self.threshold)
        return Judged(score, removed, notes)


class _WithinClasses:
    """Features minus the mean of their class."""

    def __init__(self, rows: Features, classes: int) -> None:
        self.rows, self.width = rows, rows.width
        self.means = torch.zeros(classes, rows.width, device=rows.images.device)
        for label, _, part in rows.by_class():
            self.means[label] = mean_of(part)

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self) -> Iterator[Tensor]:
        start = 0
        for part in self.rows.chunks():
            yield part - self.means[self.rows.labels[start : start + len(part)]]
            start += len(part)
