"""Square Attack."""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from bascule.attack import Attack
from bascule.attack._squares import SQUARES
from bascule.attack.losses import margin
from bascule.core.catalog import component

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations of a run of 10,000 after which the share of changed pixels is halved."""


def share_of_pixels(p_init: float, iteration: int, queries: int) -> float:
    """Share of the pixels that a square covers: the paper's schedule for 10,000 queries, stretched to `queries`."""
    return p_init / 2 ** bisect_left(HALVINGS, iteration * 10_000 // queries)


@component
class Square(Attack):
    """Random search with squares: asks the model for logits only, so masked gradients do not stop it.

    Source: Andriushchenko, Croce, Flammarion & Hein 2020, algorithms 1 to 3, with the margin loss. A change is kept
    when it raises the margin; an image is done when it is misclassified. Works in Linf and L2.

    Departures: each image has its own squares, drawn for the whole batch at once and also for images that are done, so
    that no image's luck depends on the others' fate. Squares reach the last row and column. A square in Linf that would
    change nothing is replaced by one that does, as in the authors' code.
    """

    uses_gradient: ClassVar[bool] = False

    queries: Annotated[int, Ge(1)] = 5000
    """Evaluations of the model per image and try."""
    p_init: Annotated[float, Interval(gt=0, le=1)] = 0.8
    """Share of the pixels that a square covers at first; it is halved nine times."""

    @torch.no_grad()
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        squares = SQUARES[self.norm](eps=self.eps)
        best = squares.start(x, generator=generator)
        loss = margin(model(best), y)
        x_adv, places, batch = best.clone(), torch.arange(len(x), device=x.device), len(x)
        for iteration in range(1, self.queries + 1):
            fooled = loss > 0
            if bool(fooled.any()):
                x_adv[places[fooled]] = best[fooled]
                stay = ~fooled
                places, x, y, best, loss = places[stay], x[stay], y[stay], best[stay], loss[stay]
            if len(places) == 0 or iteration == self.queries:
                break
            draws = torch.rand(batch, squares.draws(x), generator=generator, device=x.device)[places]
            candidate = squares.propose(best, x, draws, share=share_of_pixels(self.p_init, iteration, self.queries))
            reached = margin(model(candidate), y)
            better = reached > loss
            best = torch.where(better.reshape(-1, 1, 1, 1), candidate, best)
            loss = torch.where(better, reached, loss)
        x_adv[places] = best
        return x_adv
