"""An adversarial patch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.attacks.ascent import LOSSES, LossName
from bascule.attacks.contract import Evasion
from bascule.attacks.two_precisions import search_pass
from bascule.attacks.unfooled import find_unfooled
from bascule.core.catalog import component
from bascule.core.gradients import gradient_of
from bascule.core.window import Window


@component
class Patch(Evasion):
    """One square of each image replaced by the worst that projected gradient ascent finds: each image's own patch.

    Source: Brown et al. 2017 (the patch), with one per image as Rao, Stutz & Schiele 2020 train against, who also look
    for its place. Pixels inside may be anything in [0, 1]; they start at random and take sign steps. Departure: the
    place stays for a try. `salient` takes the one where the loss is steepest in sum at the image itself, so that of
    further tries only the starts differ; Rao et al. move it along the way.
    """

    mixed_precision: ClassVar[bool] = True

    size: Annotated[int, Ge(1)] = 5
    """Side of the square in pixels, cut to the image's sides."""
    place: Literal["salient", "random"] = "salient"
    """Where it lies: where the sum of the gradient's sizes is largest, or anywhere, drawn for each image and try."""
    steps: Annotated[int, Ge(1)] = 20
    """Gradient steps per try."""
    step_size: Annotated[float, Gt(0)] | None = None
    """Length of a step in [0, 1] pixel units; by default 2.5 / steps, which can cross [0, 1]."""
    loss: LossName = "ce"
    """`ce` (cross-entropy) or `margin` (largest wrong logit minus the label's)."""
    restarts: Annotated[int, Ge(1)] = 1
    """Independent tries; a later one runs only on images that withstood the earlier ones."""
    stop_when_fooled: bool = True
    """Leave an image at its first misclassified iterate instead of always taking the last one."""

    @property
    def threat(self) -> Window:
        return Window(size=self.size)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        mask = self.threat.mask(self._places(model, x, y, generator), x)
        noise = torch.empty_like(x).uniform_(generator=generator)
        current, step_size = torch.where(mask, noise, x), self.step_size or 2.5 / self.steps
        x_adv, places = current.clone(), torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            if self.stop_when_fooled:
                index, _, gradient = find_unfooled(model, current, LOSSES[self.loss], (y,))
                if len(index) < len(places):
                    x_adv[places] = current  # those who stand get a later one
                    places, current, y, mask = places[index], current[index], y[index], mask[index]
                    if len(places) == 0:
                        break
            else:
                gradient = self._gradient(model, current, y)
            current = (current + step_size * mask * gradient.sign()).clamp_(0, 1)
        x_adv[places] = current
        return x_adv

    def _places(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Of each image the number of its place."""
        if self.place == "random":
            return torch.randint(self.threat.places(x), y.shape, generator=generator, device=x.device)
        return self.threat.sums(self._gradient(model, x, y).nan_to_num().abs()).flatten(1).argmax(1)

    def _gradient(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_(True)
        return gradient_of(LOSSES[self.loss](search_pass(model)(leaf), y).sum(), leaf)
