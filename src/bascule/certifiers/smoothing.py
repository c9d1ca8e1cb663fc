"""Randomised smoothing."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn

from bascule.certifiers.contract import Certifier
from bascule.core.ball import LinfOrL2
from bascule.core.catalog import component
from bascule.core.inference import labels_of


@component
class Smoothing(Certifier):
    """Randomised smoothing (Cohen, Rosenfeld & Kolter 2019, section 3.2.2, CERTIFY): any model, true radius in L2.

    Certifies the smoothed classifier, the class the model gives most often to the image under Gaussian noise, not the
    model itself. For images taken for another class under noise, or where the vote is too close, the radius is 0. Each
    radius is wrong with probability at most `alpha`. In Linf it is the L2 radius / sqrt(number of pixel values).

    Departures: images the model itself gets wrong are not certified; `n` is 1,000 instead of 100,000, which
    caps the radius at 2.46 sigma instead of 3.81 sigma.
    """

    of_model: ClassVar[bool] = False

    norm: LinfOrL2 = "l2"
    """Norm of the radius: `l2` or `linf`."""
    sigma: Annotated[float, Gt(0)] = 0.25
    """Standard deviation of the noise in [0, 1] pixel units; the noisy images are not clipped."""
    n0: Annotated[int, Ge(1)] = 100
    """Noisy copies from which the class is guessed."""
    n: Annotated[int, Ge(1)] = 1000
    """Noisy copies from which the probability of that class is bounded."""
    alpha: Annotated[float, Interval(gt=0, lt=1)] = 0.001
    """Probability of a wrong radius, per image."""
    batch_size: Annotated[int, Ge(1)] = 2000
    """Noisy copies per pass; has no effect on the result but which draws an image gets."""

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        radii = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        # Another class than y can give no radius, so its probability is not asked for.
        index = (self._votes(model, x, self.n0, generator).argmax(1) == y).nonzero().squeeze(1)
        if len(index):
            votes = self._votes(model, x[index], self.n, generator).gather(1, y[index].unsqueeze(1)).squeeze(1)
            radius = self.sigma * special.ndtri(lower_confidence_bound(votes.cpu().numpy(), self.n, self.alpha))
            if self.norm == "linf":
                radius = radius / np.sqrt(x[0].numel())
            radii[index] = torch.from_numpy(radius).to(radii).clamp_min(0)
        return radii

    def _votes(self, model: nn.Module, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """How often each class wins under noise, B x K; all images together, copies in chunks."""
        votes = None
        for part in x.split(self.batch_size):
            copies = max(1, self.batch_size // len(part))
            rows = None
            for done in range(0, count, copies):
                repeated = part.repeat(min(copies, count - done), 1, 1, 1)
                noise = torch.empty_like(repeated).normal_(std=self.sigma, generator=generator)
                logits = model(repeated.add_(noise))
                winners = labels_of(logits).reshape(-1, len(part)).T
                if rows is None:
                    rows = torch.zeros(len(part), logits.shape[1], dtype=torch.int64, device=x.device)
                rows.scatter_add_(1, winners, torch.ones_like(winners))
            assert rows is not None
            votes = rows if votes is None else torch.cat([votes, rows])
        assert votes is not None
        return votes


def lower_confidence_bound(successes: NDArray[np.int64], n: int, alpha: float) -> NDArray[np.float64]:
    """The Clopper-Pearson bound: with probability 1 - alpha the success rate behind `successes` of `n` is above it."""
    successes = np.asarray(successes)
    with np.errstate(invalid="ignore"):
        bounds = special.betaincinv(successes, n - successes + 1, alpha)
    return np.where(successes > 0, bounds, 0.0)
