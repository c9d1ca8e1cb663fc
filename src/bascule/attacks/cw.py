"""The Carlini-Wagner attack."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.attacks.contract import Attack
from bascule.attacks.losses import margin
from bascule.core.catalog import component
from bascule.core.gradients import gradient_of


@component
class Cw(Attack):
    """The smallest L2 perturbation, by minimising its square plus c times the margin, with a binary search over c.

    Source: Carlini & Wagner 2017, section 6.1: Adam on w, where the image is (tanh(w) + 1) / 2; untargeted. L2 only:
    their Linf attack is another search. Independent of eps but for this: an image is done when a perturbation within
    eps is found. Draws nothing: a second try is the same as the first.

    Departures: 1,000 steps instead of 10,000; an image leaves a round when its own objective has stopped falling, not
    when that of the whole batch has.
    """

    norm: Literal["l2"] = "l2"
    """Norm of the ball: `l2`."""
    steps: Annotated[int, Ge(1)] = 1000
    """Most steps per round of the binary search."""
    lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate of Adam on w."""
    rounds: Annotated[int, Ge(1)] = 9
    """Rounds of the binary search over c."""
    c: Annotated[float, Gt(0)] = 1e-3
    """Weight of the margin in the first round; an image's weight grows tenfold until a round succeeds."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.ball.project(self.smallest(model, x, y, enough=self.eps), x)

    @torch.no_grad()
    def smallest(self, model: nn.Module, x: Tensor, y: Tensor, *, enough: float) -> Tensor:
        """The nearest misclassified image found for each image, wherever it is; the last step where there was none.

        An image is done when its perturbation is within `enough`.
        """
        best, distance = x.clone(), torch.where(model(x).argmax(1) == y, torch.inf, 0.0).to(x.dtype)
        low, high, c = (torch.full_like(distance, value) for value in (0.0, torch.inf, self.c))
        for _ in range(self.rounds):
            left = (distance > enough).nonzero().squeeze(1)
            if len(left) == 0:
                break
            nearest, length = self._round(model, x[left], y[left], c[left], enough)
            fell = length.isfinite()
            better = (length < distance[left]) | distance[left].isinf()
            best[left[better]], distance[left[better]] = nearest[better], length[better]
            low[left], high[left] = low[left].where(fell, c[left]), c[left].where(fell, high[left])
            c = torch.where(high.isfinite(), (low + high) / 2, 10 * low)
        return best

    def _round(self, model: nn.Module, x: Tensor, y: Tensor, c: Tensor, enough: float) -> tuple[Tensor, Tensor]:
        """The nearest misclassified images for weights `c` (shape (B,)) and their distances.

        Where there is none, the last step and an infinite distance.
        """
        w = ((2 * x - 1) * (1 - 1e-6)).atanh()
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        x_adv, best, places = x.clone(), x.clone(), torch.arange(len(x), device=x.device)
        reached = torch.full_like(c, torch.inf)
        distance, before = reached.clone(), reached.clone()
        for step in range(1, self.steps + 1):
            image, gap, objective, gradient = _objective(model, w, x, y, c)
            length = self.ball.distance(image, x)
            closer = (gap > 0) & (length < distance)
            best = torch.where((closer | distance.isinf()).reshape(-1, 1, 1, 1), image, best)
            distance = torch.where(closer, length, distance)
            # Adam (Kingma & Ba 2015) with its usual constants.
            mean, square = mean.lerp(gradient, 0.1), square.lerp(gradient.square(), 0.001)
            w = w - self.lr * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            stay = distance > enough
            if step % max(self.steps // 10, 1) == 0:
                stay &= objective <= 0.9999 * before
                before = objective
            if not bool(stay.all()):
                x_adv[places[~stay]], reached[places[~stay]] = best[~stay], distance[~stay]
                places, x, y, c, w, mean, square, best, distance, before = (
                    part[stay] for part in (places, x, y, c, w, mean, square, best, distance, before)
                )
                if len(places) == 0:
                    break
        x_adv[places], reached[places] = best, distance
        return x_adv, reached


@torch.enable_grad()
def _objective(model: nn.Module, w: Tensor, x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The images that `w` stands for, their margins and objectives (shape (B,) each), the objectives' gradient in w."""
    w = w.requires_grad_(True)
    image = (w.tanh() + 1) / 2
    gap = margin(model(image), y)
    objective = (image - x).square().flatten(1).sum(1) + c * (-gap).clamp_min(0)
    gradient = gradient_of(objective.sum(), w)
    return image.detach(), gap.detach(), objective.detach(), gradient
