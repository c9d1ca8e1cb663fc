"""Two clusters in the activations of a class."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.projection import components, whole_number
from bascule.filters.clusters import LEAST, TwoClusters, split
from bascule.filters.contract import Judged, LayerFilter
from bascule.filters.rules import note_left_out, small_classes

_SAMPLE = 5000


@component
class ActivationClustering(LayerFilter):
    """Activation clustering (Chen et al. 2018): per class, few components of the activations, k-means with k = 2.

    Rules: `relative-size` removes the smaller cluster where it holds less than `max_share` of its class, `silhouette`
    where the clusters are well separated (both Chen et al., section 5). `smaller` and `larger` always remove that
    cluster, whatever it looks like: Weng, Lee & Wu 2020 (section 5.1) removed the one cluster of class 7 that held
    their first poisoned image; with `only_class` these two reproduce either choice, and neither knows which is right.

    Score: how far an image leans to the removed cluster, (d_other - d_own) / (d_other + d_own) for its distances to the
    two centres, times how clearly its class is split: 1 - 2 x the smaller share, or the silhouette (0 if negative), or
    1 for the last two rules. So images of an evenly split class score near 0. Classes that are not looked at score -1,
    those of fewer than 10 images 0.

    k-means and the silhouette know distances only, and independent components are the whitened principal ones turned,
    so `ica` splits a class by its whitened principal components, however the rotation comes out.

    Departures: no relabelling by a retrained model (section 5, exclusionary reclassification); ICA is made from the
    principal components, which gives the same components; the silhouette is that of at most 5,000 images.
    """

    reduce: Literal["ica", "pca"] = "ica"
    """Components: independent (FastICA) or principal."""
    dimensions: Annotated[int, Ge(1)] = 10
    """Number of components; fewer where the activations vary along fewer directions."""
    rule: Literal["relative-size", "silhouette", "smaller", "larger"] = "relative-size"
    """Which clusters are removed."""
    max_share: Annotated[float, Interval(gt=0, le=0.5)] = 0.35
    """For `relative-size`: a cluster with a smaller share of its class is removed."""
    min_silhouette: Annotated[float, Interval(ge=-1, le=1)] = 0.1
    """For `silhouette`: the smaller cluster is removed from this mean silhouette on."""
    only_class: Annotated[int, Ge(0)] | None = None
    """Look at this label number only; by default at all. A defender does not know it."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        if self.only_class is not None and not bool((images.labels == self.only_class).any()):
            raise RequestError(f"no image has the label {self.only_class}", place=("only_class",))
        score = torch.zeros(len(images), device=images.device)
        removed = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        flat: list[int] = []
        for label, index, rows in self.features(model, images).by_class():
            if self.only_class not in (None, label):
                score[index] = -1.0
                continue
            if len(index) < LEAST:
                continue
            _, points = components(rows.in_memory(), self.dimensions, method=self.reduce, generator=generator)
            if points.shape[1] == 0:
                flat.append(label)
                continue
            clusters = split(points, generator=generator)
            leaning, chosen = clusters.leaning, clusters.second
            if self.rule == "larger":
                leaning, chosen = -leaning, ~chosen
            clarity, guilty = self._verdict(points, clusters, generator)
            score[index] = clarity * leaning
            removed[index] = chosen & guilty
        few = [label for label in small_classes(images, LEAST) if self.only_class in (None, label)]
        notes = note_left_out(images, few, f"having fewer than {LEAST} images") + note_left_out(
            images, flat, "all their activations being equal"
        )
        return Judged(score, removed, notes)

    def _verdict(self, points: Tensor, clusters: TwoClusters, generator: torch.Generator) -> tuple[float, bool]:
        """How clearly a class is split, in [0, 1], and whether a cluster of it is removed."""
        if self.rule == "relative-size":
            return 1 - 2 * clusters.share, clusters.share < self.max_share
        if self.rule == "silhouette":
            value = float(
                silhouette_score(
                    points.cpu().numpy(),
                    clusters.second.cpu().numpy(),
                    sample_size=min(len(points), _SAMPLE),
                    random_state=whole_number(generator=generator),
                )
            )
            return max(0.0, value), value >= self.min_silhouette
        return 1.0, True
