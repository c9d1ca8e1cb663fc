"""A smooth pattern over the whole image, without high frequencies, found on a proxy."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.triggers._universal import Pattern, universal
from bascule.triggers.contract import Found, Searched, Trigger

_BATCH = 100
_LR = 0.1


@component
class LowFrequency(Searched):
    """Added brightness behind a low-pass filter, such that a proxy takes images of other classes for the target.

    Each channel is smoothed by a Gaussian, then all are brought to [0, strength]: made to pass detectors that look for
    the high frequencies of other triggers.

    Source: Zeng, Park, Mao & Jia 2021 ("Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", section 5,
    the smooth trigger; `lf` in BackdoorBench) and their code (YiZeng623/frequency-backdoor: Sec5_Smooth_Trigger,
    universal_pert.py, gauss_smooth.py): a Gaussian of 6 pixels on images of 32 x 32, values in [0, 0.2], a dirty-label
    attack. Departures: they add up smoothed DeepFool steps of 100 training images, one by one, until a fifth of them
    are misclassified, and take as target the label that most are taken for; here the target is given, and the
    cross-entropy towards it falls by gradient steps through the filter.
    """

    strength: Annotated[float, Interval(gt=0, le=1)] = 0.2
    """Value of its brightest pixel, in [0, 1] pixel units; the darkest adds nothing."""
    sigma: Annotated[float, Gt(0)] = 6.0
    """Standard deviation of the Gaussian, in pixels."""
    steps: Annotated[int, Ge(1)] = 300
    """Gradient steps of the search, each on 100 images."""

    def search(
        self, proxy: nn.Module, images: Images, chosen: Tensor, target: int, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        others = images.at(images.labels.ne(target).nonzero().squeeze(1))
        pattern = universal(
            proxy,
            others,
            target,
            torch.randn(images.size, generator=generator, device=images.device),
            self._smooth,
            steps=self.steps,
            batch_size=_BATCH,
            lr=_LR,
            generator=generator,
        )
        return {"pattern": pattern}

    def _smooth(self, raw: Tensor) -> Tensor:
        """The pattern behind raw values C x H x W: smoothed, then brought to [0, strength] over all channels."""
        low = low_pass(raw, self.sigma)
        low = low - low.amin()
        return low * (self.strength / low.amax().clamp_min(torch.finfo(low.dtype).tiny))

    def found(self, what: Found) -> Trigger:
        return Pattern(what["pattern"])


def low_pass(x: Tensor, sigma: float) -> Tensor:
    """Each channel of C x H x W behind a Gaussian of `sigma` pixels and sum 1; beyond the border there is nothing."""
    rows, columns = (_gaussian(side, sigma).to(x) for side in x.shape[1:])
    return rows @ x @ columns


def _gaussian(side: int, sigma: float) -> Tensor:
    """Smoothing along one side as a matrix, side x side."""
    steps = torch.arange(-side, side + 1, dtype=torch.float64)
    reach = torch.exp(-0.5 * (steps / sigma) ** 2)
    place = torch.arange(side)
    return (reach / reach.sum())[place.unsqueeze(1) - place + side]
