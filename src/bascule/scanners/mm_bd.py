"""MM-BD: the largest margin any input can reach, for every class."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from scipy import special
from torch import Tensor, nn

from bascule.attacks.ascent import ascend
from bascule.attacks.losses import margin
from bascule.core.ball import ball
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.scanners.batches import classes_at_once
from bascule.scanners.contract import Scan, Scanner


@component
class MmBd(Scanner):
    """Maximum margin backdoor detection (Wang, Xiang, Miller & Kesidis 2024): needs no clean images and no trigger.

    Poisoning makes the model overconfident in the target: for each class, inputs are sought anywhere in [0, 1] whose
    logit of the class exceeds every other by as much as possible. The largest margin is compared with a null
    distribution fitted to those of the other classes. The anomaly is -log10 of the probability that the largest of as
    many clean classes would be as large; 1.3 is a probability of 0.05. Recovers no trigger.

    Departures from the authors' script: sign steps in the whole box instead of gradient steps of length 0.01, which end
    far from the maximum on small networks; the Gamma distribution is fitted by its first two moments with its origin
    at 0.
    """

    starts: Annotated[int, Ge(1)] = 30
    """Random inputs per class, drawn uniformly from [0, 1]."""
    steps: Annotated[int, Ge(1)] = 100
    """Ascent steps from each."""
    step_size: Annotated[float, Gt(0)] = 0.05
    """Length of a step in [0, 1] pixel units; a tenth of it in the second half of the steps."""
    significance: Annotated[float, Interval(gt=0, lt=1)] = 0.05
    """Probability below which the class with the largest margin is a suspect."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        labels = torch.arange(len(images.classes), device=images.device)
        parts = labels.split(classes_at_once(images, self.starts))
        margins = torch.cat([self._margins(model, part, images.size, generator) for part in parts])
        return Scan(
            anomaly=unlikeliness(margins),
            threshold=-math.log10(self.significance),
            details={"margin": margins},
        )

    def _margins(
        self, model: nn.Module, labels: Tensor, size: tuple[int, int, int], generator: torch.Generator
    ) -> Tensor:
        """The largest margin found for each class, shape (k,)."""
        y = labels.repeat_interleave(self.starts)
        x = torch.rand(len(y), *size, generator=generator, device=generator.device)
        box, centre = ball("linf", 0.5), torch.full_like(x, 0.5)
        half = -(-self.steps // 2)
        for steps, step_size in ((half, self.step_size), (self.steps - half, self.step_size / 10)):
            x = ascend(
                model,
                centre,
                y,
                ball=box,
                start=x,
                steps=steps,
                step_size=step_size,
                loss=lambda logits, y: -margin(logits, y),
                stop_when_fooled=False,
            )
        with torch.no_grad():
            return -margin(model(x), y).view(-1, self.starts).amax(1)


def unlikeliness(margins: Tensor) -> Tensor:
    """-log10 of the probability that the largest of K margins is as large, for each of K margins.

    Under the null hypothesis margins follow the Gamma distribution with the mean and variance of all but the largest.
    A margin that is not positive counts as hardly positive.
    """
    values = margins.double().clamp_min(1e-3 * margins.amax().clamp_min(1e-6))
    others = values.sort().values[:-1]
    mean, variance = others.mean(), others.var().clamp_min(1e-6 * others.mean() ** 2)
    survival = special.gammaincc(float(mean**2 / variance), (values * mean / variance).cpu().numpy())
    beyond = torch.as_tensor(survival).clamp(1e-300, 1 - 1e-16)
    unlikely = -torch.expm1(len(values) * torch.log1p(-beyond))  # 1 - (1 - beyond) ** K
    return -unlikely.log10().to(margins).clamp_max(0)
