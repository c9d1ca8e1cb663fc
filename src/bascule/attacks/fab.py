"""Fast Adaptive Boundary attack."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from bascule.attacks._boundary import gaps, likeliest_wrong, nearest, to_plane_in_box, together
from bascule.attacks._rows import choose
from bascule.attacks.contract import Attack
from bascule.core.ball import ball
from bascule.core.catalog import component


@component
class Fab(Attack):
    """The smallest perturbation that crosses a boundary: projections onto linearised boundaries, pulled to the image.

    Source: Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
    algorithm 1; by default the targeted version FAB-T of AutoAttack. It does not need the loss to point anywhere, only
    the boundary to be near, and is independent of eps but for this: an image is done when a perturbation within eps is
    found, and a random start lies within eps / 2.

    Departures: no final search along the line to the image; the untargeted version looks at `targets` boundaries
    instead of all.
    """

    steps: Annotated[int, Ge(1)] = 100
    """Steps per try, and per target where `targeted`."""
    targets: Annotated[int, Ge(1)] = 9
    """Classes looked at: those with the largest logits at the image, except the label."""
    targeted: bool = True
    """One run towards each target, instead of one in which each step goes to the nearest of their boundaries."""
    random_start: bool = False
    """Start at a point of the ball of half the radius instead of the image; without it another restart is the same."""
    alpha_max: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Largest weight of the way from the image itself in a step."""
    eta: Annotated[float, Ge(1)] = 1.05
    """Steps go this much farther than the linearised boundary."""
    beta: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Share of the perturbation that is kept when a crossing is stepped back from."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        near = self.smallest(model, x, y, enough=self.eps, generator=generator)
        return self.ball.project(near, x)

    @torch.no_grad()
    def smallest(self, model: nn.Module, x: Tensor, y: Tensor, *, enough: float, generator: torch.Generator) -> Tensor:
        """The nearest crossing found for each image, wherever it is; the last step where there was none.

        An image is done when its crossing is within `enough`.
        """
        start = ball(self.norm, self.eps / 2).random_point(x, generator=generator) if self.random_start else x
        logits = model(x)
        best = torch.where((logits.argmax(1) == y).reshape(-1, 1, 1, 1), start, x)
        distance = torch.where(logits.argmax(1) == y, torch.inf, 0.0).to(x.dtype)
        targets = likeliest_wrong(logits, y, self.targets)
        groups = list(targets.split(1, dim=1)) if self.targeted else [targets]
        while groups:
            left = (distance > enough).nonzero().squeeze(1)
            if len(left) == 0:
                break
            tries = together(len(left), len(groups))
            now, groups = torch.cat([group[left] for group in groups[:tries]]), groups[tries:]
            known = (part[left].repeat(tries, *[1] * (part.ndim - 1)) for part in (x, y, start, best, distance))
            found, length = (
                part.unflatten(0, (tries, -1)) for part in self._run(model, now, *known, enough=enough, tries=tries)
            )
            # The first run that comes within `enough`, as if they had been one after the other; else the nearest
            # crossing; else, where there is none, the last run's end.
            within = length <= enough
            winner = torch.where(within.any(0), within.byte().argmax(0), length.argmin(0))
            winner = torch.where(length.isinf().all(0), tries - 1, winner)
            rows = torch.arange(len(left), device=x.device)
            best[left], distance[left] = found[winner, rows], length[winner, rows]
        return best

    def _run(
        self,
        model: nn.Module,
        targets: Tensor,
        x: Tensor,
        y: Tensor,
        current: Tensor,
        best: Tensor,
        distance: Tensor,
        *,
        enough: float,
        tries: int,
    ) -> tuple[Tensor, Tensor]:
        """The nearest crossings after a run from `current` and their distances, `best` and `distance` being known.

        Of each image `tries` runs lie in the batch, all first ones before all second ones; once one comes within
        `enough`, the later ones of the image end.
        """
        x_adv, reached = best.clone(), distance.clone()
        places = torch.arange(len(x), device=x.device)
        first = torch.full((len(x) // tries,), tries, device=x.device)
        for _ in range(self.steps):
            gap, gradient = nearest(*gaps(model, current, y, targets), ball=self.ball)
            current = self._step(current, x, gap, gradient)
            crossed = model(current).argmax(1) != y
            length = self.ball.distance(current, x)
            closer = crossed & (length < distance)
            best = choose(closer, current, best)
            distance = torch.where(closer, length, distance)
            current = choose(crossed, x + self.beta * (current - x), current)
            stay = distance > enough
            if tries > 1 and not bool(stay.all()):
                done = places[~stay]
                first.scatter_reduce_(0, done % len(first), done // len(first), "amin")
                stay &= places // len(first) < first[places % len(first)]
            if not bool(stay.all()):
                x_adv[places[~stay]], reached[places[~stay]] = best[~stay], distance[~stay]
                places, x, y, targets = places[stay], x[stay], y[stay], targets[stay]
                current, best, distance = current[stay], best[stay], distance[stay]
                if len(places) == 0:
                    break
        x_adv[places] = choose(distance.isinf(), current, best)
        reached[places] = distance
        return x_adv, reached

    def _step(self, current: Tensor, x: Tensor, gap: Tensor, gradient: Tensor) -> Tensor:
        """Both the iterate's and the image's own way to the plane, weighted by their lengths (equations 7 and 9)."""
        gap_at_x = gap + (gradient * (x - current)).flatten(1).sum(1)
        origins, planes = torch.cat([current, x]), torch.cat([gradient, gradient])
        deltas = to_plane_in_box(origins, torch.cat([gap, gap_at_x]), planes, ball=self.ball)
        lengths = self.ball.distance(deltas, torch.zeros_like(deltas)).chunk(2)
        share = lengths[0] / (lengths[0] + lengths[1]).clamp_min(torch.finfo(x.dtype).tiny)
        alpha = share.clamp_max(self.alpha_max).reshape(-1, 1, 1, 1)
        ways = (origins + self.eta * deltas).chunk(2)
        return torch.lerp(ways[0], ways[1], alpha).clamp_(0, 1)
