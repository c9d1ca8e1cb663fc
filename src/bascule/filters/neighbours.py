"""Labels of the nearest neighbours."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.inference import chunks
from bascule.core.projection import principal
from bascule.core.text import count
from bascule.filters.contract import Judged, LayerFilter
from bascule.filters.rules import small_classes


@component
class Neighbours(LayerFilter):
    """Deep k nearest neighbours (Peri et al. 2020): does an image's label agree with those of its neighbours?

    Score: share of its `k` nearest neighbours in feature space that carry another label. Removed is an image whose own
    label is not among the most frequent ones of its neighbours. A baseline: it finds wrong labels where the model has
    not fitted them, and backdoors hardly, since a backdoored model puts triggered images beside the target class.

    Departures: an image is not its own neighbour; features longer than `dimensions` are cut down to as many principal
    coordinates, which changes distances little and costs much less.
    """

    k: Annotated[int, Ge(1)] = 50
    """Neighbours asked; should be below the size of the smallest class."""
    dimensions: Annotated[int, Ge(1)] = 128
    """Principal coordinates in which distances are measured, at most."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        if self.k >= len(images):
            raise RequestError(
                f"{count(self.k, 'neighbour')} of {count(len(images), 'image')}; choose fewer", place=("k",)
            )
        rows = self.features(model, images).in_memory()
        points = principal(rows, self.dimensions, generator=generator).of(rows)
        votes = _votes(points, images.labels, self.k, len(images.classes))
        own = votes.gather(1, images.labels.unsqueeze(1)).squeeze(1)
        few = small_classes(images, self.k + 1)
        notes: tuple[str, ...] = ()
        if few:
            named = ", ".join(f"{label} ({images.classes[label]})" for label in few[:5])
            notes = (
                f"{count(len(few), 'class has', 'classes have')} no more than {count(self.k, 'image')}, so "
                f"that some neighbours carry another label in any case: choose a smaller `k`: {named}",
            )
        return Judged(1 - own / self.k, own < votes.amax(1), notes)


def _votes(points: Tensor, labels: Tensor, k: int, classes: int) -> Tensor:
    """How many of the k nearest others carry each label, N x K."""
    one_hot = F.one_hot(labels, classes).float()
    counts = []
    size = max(1, 2**26 // len(points))  # 256 MiB of distances at a time
    for index in chunks(len(points), size, points.device):
        distances = torch.cdist(points[index], points)
        distances[torch.arange(len(index), device=points.device), index] = torch.inf
        counts.append(one_hot[distances.topk(k, largest=False).indices].sum(1))
    return torch.cat(counts)
