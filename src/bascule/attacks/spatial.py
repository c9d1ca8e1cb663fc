"""Small rotations and shifts."""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from bascule.attacks._boundary import together
from bascule.attacks.contract import Evasion
from bascule.attacks.losses import margin
from bascule.core.catalog import component
from bascule.core.motion import PARAMETERS, Motions


@component
class Spatial(Evasion):
    """The image turned and shifted so that the model is most wrong: no ball, and no gradients.

    Source: Engstrom et al. 2019 ("Exploring the landscape of spatial robustness"), section 4: up to 30 degrees and up
    to 3 pixels, black borders; all points of a grid, 31 angles by 5 by 5 shifts, or the worst of some random motions,
    which is what they train on. Their first search, along gradients, they find to be much weaker.

    Departures: what is worst is told by the margin of the logits instead of the cross-entropy, which float32 rounds to
    0; the points farthest out come first, and an image is done at the first one that fools the model.
    """

    uses_gradient: ClassVar[bool] = False

    degrees: Annotated[float, Interval(ge=0, le=180)] = 30.0
    """Largest angle, either way."""
    pixels: Annotated[float, Ge(0)] = 3.0
    """Largest shift along each of the two axes, either way. The source: about a tenth of the side."""
    search: Literal["grid", "random"] = "grid"
    """`grid`: `angles` times `shifts` squared motions, for every image the same; `random`: `tries` of its own."""
    angles: Annotated[int, Ge(1)] = 31
    """For `grid`: evenly spaced angles; of an odd number one is 0."""
    shifts: Annotated[int, Ge(1)] = 5
    """For `grid`: evenly spaced shifts along each axis."""
    tries: Annotated[int, Ge(1)] = 10
    """For `random`: motions, drawn uniformly."""
    stop_when_fooled: bool = True
    """Leave an image at the first motion that fools the model instead of the one that does so most."""

    @property
    def threat(self) -> Motions:
        return Motions(degrees=self.degrees, pixels=self.pixels)

    @torch.no_grad()
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """The motions found, B x 3: see `bascule.core.motion`."""
        motions = self._motions(x, generator)
        best, highest = torch.zeros(len(x), PARAMETERS, dtype=x.dtype, device=x.device), x.new_full(y.shape, -torch.inf)
        standing = torch.arange(len(x), device=x.device)
        while len(motions) and len(standing):
            count = together(len(standing), len(motions))
            now, motions = motions[:count, standing], motions[count:]
            images = self.threat.realise(now.flatten(0, 1), x[standing].repeat(count, 1, 1, 1))
            value, which = margin(model(images), y[standing].repeat(count)).reshape(count, -1).max(0)
            better = value > highest[standing]
            places = standing[better]
            best[places], highest[places] = (
                now[which, torch.arange(len(standing), device=x.device)][better],
                value[better],
            )
            if self.stop_when_fooled:
                standing = standing[highest[standing] <= 0]
        return best

    def _motions(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """What is tried, one after the other, T x B x 3."""
        if self.search == "random":
            shape = (self.tries, len(x), PARAMETERS)
            drawn = torch.empty(shape, dtype=x.dtype, device=x.device).uniform_(-1, 1, generator=generator)
            return drawn * self.threat.limits(x)
        sides = [_evenly(self.angles), _evenly(self.shifts), _evenly(self.shifts)]
        points = sorted(itertools.product(*sides), key=lambda point: -sum(map(abs, point)))
        grid = torch.tensor(points, dtype=x.dtype, device=x.device) * self.threat.limits(x)
        return grid.unsqueeze(1).expand(-1, len(x), -1)


def _evenly(count: int) -> list[float]:
    """So many numbers from -1 to 1; of one alone 0."""
    return [2 * place / (count - 1) - 1 for place in range(count)] if count > 1 else [0.0]
