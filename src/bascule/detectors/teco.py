"""Whether all corruptions change the label about as soon."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.attacks.losses import margin
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.inference import labels_of
from bascule.detectors._corruptions import Severities, corruptions
from bascule.detectors.contract import Detector, Prepared

_LEAST = 1e-6
"""Added to the variance, whose root has no gradient at zero."""


@component
class Teco(Detector):
    """TeCo (Liu et al. 2023): some corruptions undo a trigger at once and others not at all; clean images fall evenly.

    Each input is corrupted in 11 ways at severities 1 to 5. For each way, the first severity at which the label is no
    longer that of the input itself counts, 6 where it stays. Suspicion: the deviation of these eleven numbers, between
    0 and 2.5.

    The corruptions are Gaussian, shot and impulse noise, defocus, glass, motion and zoom blur, brightness, contrast,
    pixelation and JPEG of Hendrycks & Dietterich 2019. Missing of the 15 of the paper: snow, frost, fog and the elastic
    transform.

    Departures: noise and what else is drawn is drawn once and is the same for all inputs; corrupted images are not
    rounded to bytes; motion blur is computed as in the package `imagecorruptions`. Each corruption begins with the
    input, as in the paper; in the published code (also in BackdoorBench) the images of one severity go on into the next
    one, and from each corruption into the next.

    It costs 56 forward passes, and differentiated by an attacker the memory of as many.
    """

    severities: Severities = "imagenet-c"
    """Parameters of the corruptions: `imagenet-c`, those of the package that the published code calls, also on small
    images; or the milder ones of `cifar-c`, made for 32 x 32."""

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        ways = corruptions(images.size, self.severities, generator=generator).values()

        def suspicion(x: Tensor) -> Tensor:
            labels = labels_of(model(x))
            kept = torch.stack([torch.stack([labels_of(model(way(x))) == labels for way in ways_]) for ways_ in ways])
            return _first_changes(kept.float()).std(0, correction=0)

        def smooth(x: Tensor) -> Tensor:
            labels = labels_of(model(x).detach())
            kept = [torch.stack([(-margin(model(way(x)), labels)).sigmoid() for way in ways_]) for ways_ in ways]
            return (_first_changes(torch.stack(kept)).var(0, correction=0) + _LEAST).sqrt()

        return Prepared(suspicion=suspicion, smooth=smooth)


def _first_changes(kept: Tensor) -> Tensor:
    """First severity, from 1 on, at which the label is not kept.

    Args:
        kept: Corruptions x severities x images; 1 where the label is kept and 0 where not, or something between.

    Returns:
        Corruptions x images, between 1 and one more than there are severities.
    """
    return 1 + kept.cumprod(1).sum(1)
