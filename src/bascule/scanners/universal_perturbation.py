"""Universal perturbations: the smallest change of all pixels for every class."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.scanners.contract import Scan, Scanner
from bascule.scanners.inversion import Drawn, Form, Schedule, invert
from bascule.scanners.verdict import verdict


@component
class UniversalPerturbation(Scanner):
    """Targeted universal adversarial perturbations (after Moosavi-Dezfooli et al. 2017), a baseline.

    For each class the perturbation of least L2 norm that moves images of the other classes to it; a class that needs a
    far smaller one than the median (MAD index) is a suspect. Unlike `neural-cleanse` it has no mask, so it suits
    triggers that change many pixels a little (a watermark, a signal) and not a sticker. Same search and schedule.

    An entry d of the perturbation moves a pixel the share |d| of the way to white (d > 0) or to black (d < 0), which
    needs no clipping; on black and on white pixels that is x + d, clipped.
    """

    wanted_success: Annotated[float, Interval(gt=0, le=1)] = 0.99
    """Share of images of other classes that a perturbation must move to the class."""
    threshold: Annotated[float, Gt(0)] = 2.0
    """Anomaly index above which a class is a suspect."""
    max_looks: Annotated[int, Ge(1)] = 100
    """Looks (of 10 steps) after which a class is done in any case."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        labels = torch.arange(len(images.classes), device=images.device)
        form = Perturbation(images.size)
        schedule = Schedule(wanted_success=self.wanted_success, first_cost=_FIRST_COST, max_looks=self.max_looks)
        inverted = invert(model, images, labels, form, schedule, generator=generator)
        return verdict(inverted, labels, images, threshold=self.threshold, largest=math.sqrt(math.prod(images.size)))


_FIRST_COST = 1e-2
"""Of a perturbation's L2 norm, in units of cross-entropy: norms are some ten times smaller than masks."""


class Perturbation(Form):
    """One value per pixel and channel in tanh space; the size is the L2 norm."""

    def __init__(self, size: tuple[int, int, int]) -> None:
        self.size = size

    def start(self, count: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(count, math.prod(self.size), generator=generator, device=generator.device).mul_(0.1)

    def draw(self, raw: Tensor) -> Drawn:
        change = torch.tanh(raw)
        mask, pattern = change.abs(), (change.detach() > 0).to(change)
        return Drawn(mask.view(-1, *self.size), pattern.view(-1, *self.size), torch.linalg.vector_norm(change, dim=1))
