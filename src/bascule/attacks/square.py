"""Square Attack."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from bascule.attacks._rows import choose
from bascule.attacks._squares import SQUARES, Squares
from bascule.attacks.contract import Attack
from bascule.attacks.losses import margin
from bascule.core.catalog import component

_PUBLISHED = 10_000
"""Queries that the paper's schedule is for."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations of a run of 10,000 after which the share of changed pixels is halved."""

_TOGETHER = 16
"""Images that cost little more than a few: where fewer stand, several squares of each are asked about at once."""
_WORTH = 4
"""Squares at least that are asked about at once, or the bookkeeping costs more than it saves."""


def share_of_pixels(p_init: float, iteration: int, queries: int) -> float:
    """Share of the pixels that a square covers: the paper's schedule for 10,000 queries, stretched to `queries`."""
    return p_init / 2 ** bisect_left(HALVINGS, iteration * _PUBLISHED // queries)


@component
class Square(Attack):
    """Random search with squares: asks the model for logits only, so masked gradients do not stop it.

    Source: Andriushchenko, Croce, Flammarion & Hein 2020, algorithms 1 to 3, with the margin loss. A change is kept
    when it raises the margin; an image is done when it is misclassified. In L1 the squares are those that Croce & Hein
    2021 ("Mind the box") made from the ones in L2.

    Departures: each image has its own squares, drawn for the whole batch at once and also for images that are done, so
    that no image's luck depends on the others' fate. Squares reach the last row and column. A square in Linf that would
    change nothing is replaced by one that does, as in the authors' code. Where few images stand, the model is asked
    about several squares of each at once, as if none before them were kept: what comes after one that is kept is asked
    anew, so the search is the same, and these answers do not count as queries.
    """

    uses_gradient: ClassVar[bool] = False
    later: ClassVar[tuple[str, ...]] = ("stretch",)

    queries: Annotated[int, Ge(1)] = 5000
    """Evaluations of the model per image and try."""
    p_init: Annotated[float, Interval(gt=0, le=1)] = 0.8
    """Share of the pixels that a square covers at first; it is halved nine times."""
    stretch: bool = True
    """Shrink the squares over the `queries` that there are; without it as if there were 10,000, so that a shorter
    search ends with larger ones."""

    @torch.no_grad()
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        squares = SQUARES[self.norm](eps=self.eps)
        best = squares.start(x, generator=generator)
        loss = margin(model(best), y)
        x_adv, places, batch = best.clone(), torch.arange(len(x), device=x.device), len(x)
        iteration = 1
        while True:
            fooled = loss > 0
            if bool(fooled.any()):
                x_adv[places[fooled]] = best[fooled]
                stay = ~fooled
                places, x, y, best, loss = places[stay], x[stay], y[stay], best[stay], loss[stay]
            if len(places) == 0 or iteration == self.queries:
                break
            share, ahead = self._share(iteration), self._ahead(iteration, len(places))
            before, shape = generator.get_state(), (batch, squares.draws(x))
            draws = _draw(ahead, shape, generator)[:, places]
            best, loss, played = _play(model, squares, best, loss, x, y, draws, share)
            if played < ahead:  # nobody stands: the stream goes on as if nothing had been drawn ahead
                generator.set_state(before)
                _draw(played, shape, generator)
            iteration += ahead
        x_adv[places] = best
        return x_adv

    def _share(self, iteration: int) -> float:
        return share_of_pixels(self.p_init, iteration, self.queries if self.stretch else _PUBLISHED)

    def _ahead(self, iteration: int, standing: int) -> int:
        """How many iterations from this one on are asked about at once: they have squares of one size."""
        most = max(1, min(_TOGETHER // standing, self.queries - iteration))
        if most < _WORTH:
            return 1
        share = self._share(iteration)
        same = (self._share(iteration + later) == share for later in range(1, most))
        return 1 + sum(itertools.takewhile(bool, same))


def _draw(rounds: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """What `rounds` iterations need, one after the other, of this shape each."""
    return torch.stack([torch.rand(shape, generator=generator, device=generator.device) for _ in range(rounds)])


def _play(
    model: nn.Module,
    squares: Squares,
    best: Tensor,
    loss: Tensor,
    x: Tensor,
    y: Tensor,
    draws: Tensor,
    share: float,
) -> tuple[Tensor, Tensor, int]:
    """Some iterations of the search for S images: the new `best` and `loss`, and how many it took until all had fallen.

    Args:
        model: From images to logits.
        squares: The moves.
        best: The images as changed so far.
        loss: Their margins, none above 0.
        x: The images themselves.
        y: Their labels.
        draws: For each iteration and image what `squares` needs, R x S x D.
        share: Of the pixels that a square covers.
    """
    if len(draws) == 1:
        candidate = squares.propose(best, x, draws[0], share=share)
        reached = margin(model(candidate), y)
        better = reached > loss
        return choose(better, candidate, best), torch.where(better, reached, loss), 1
    rounds = torch.arange(len(draws), device=x.device).unsqueeze(1)
    done, best, loss = torch.zeros_like(y), best.clone(), loss.clone()
    while True:
        left = (rounds >= done) & (loss <= 0)
        number, image = left.nonzero().unbind(1)
        if len(image) == 0:
            return best, loss, int(done.max()) if bool((loss > 0).all()) else len(draws)
        candidate = squares.propose(best[image], x[image], draws[number, image], share=share)
        reached = margin(model(candidate), y[image])
        better = reached > loss[image]
        first = torch.full_like(y, len(draws)).scatter_reduce(0, image[better], number[better], "amin")
        kept = better & (number == first[image])
        best[image[kept]], loss[image[kept]] = candidate[kept], reached[kept]
        done = torch.where(left.any(0), first + 1, done)
