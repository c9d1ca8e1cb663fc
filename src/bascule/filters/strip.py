"""How sure the model stays when other images are laid over."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import nn

from bascule.core.ahead import read_batches
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.inference import chunks, entropy_of
from bascule.core.statistics import CONSISTENCY, deviations
from bascule.filters.contract import Filter, Judged

_CHUNK = 1000
_UNREACHABLE = (
    "the threshold lies below zero, where no entropy can be, so no image can be removed; more `overlays` or a larger "
    "`false_alarms` raise it, and the score ranks all the same"
)


@component
class Strip(Filter):
    """STRIP (Gao et al. 2019): a trigger keeps the prediction sure when other images are added on top.

    Score: minus the mean entropy of the model's predictions for the image with each of `overlays` random images of the
    set added to it and cut to [0, 1], as a share of the largest possible entropy: between -1 and 0.

    Removed: images whose mean entropy lies below the `false_alarms` quantile of a normal distribution, as in the paper
    (section 5.1). Departure: with no images known to be clean, the distribution's mean and deviation are taken from the
    median and the median absolute deviation of the set itself, which a minority of poisoned images moves little.

    The rule needs many overlays: the chance of a few of them widens the distribution until, for a model that is sure of
    most sums, the quantile lies below zero, where no entropy can be. Then nothing is removed, and a note says so. Real
    entropies have a longer lower tail than a normal distribution, so more clean images are removed than `false_alarms`,
    three times as many and more (docs/decisions/0011-strips-threshold.md).
    """

    overlays: Annotated[int, Ge(1)] = 100
    """Random images laid over each image (100 in the paper); each costs a forward pass of the whole set."""
    false_alarms: Annotated[float, Interval(gt=0, le=0.5)] = 0.01
    """Share of clean images that may be removed, if their entropies were normally distributed."""

    @torch.no_grad()
    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        entropy = torch.zeros(len(images), device=images.device)
        for _ in range(self.overlays):
            partners = torch.randint(len(images), (len(images),), generator=generator, device=images.device)
            shown = read_batches(images, chunks(len(images), _CHUNK, images.device))
            over = read_batches(images, partners.split(_CHUNK))
            for (index, x), (_, other) in zip(shown, over, strict=True):
                entropy[index] += entropy_of(model((x + other).clamp_(max=1))).float()
        entropy /= self.overlays * math.log(len(images.classes))
        median, _, mad = deviations(entropy)
        threshold = median + NormalDist().inv_cdf(self.false_alarms) * (CONSISTENCY * mad)
        notes = () if float(threshold) > 0 else (_UNREACHABLE,)
        return Judged(-entropy, entropy < threshold, notes)
