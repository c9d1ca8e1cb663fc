"""Auto-PGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from bascule.attacks._auto_pgd import Searched, auto_pgd
from bascule.attacks._auto_pgd_l1 import auto_pgd_l1, start_in_l1
from bascule.attacks._boundary import likeliest_wrong, together
from bascule.attacks.contract import Attack
from bascule.attacks.losses import AimedLoss, dlr, dlr_targeted, precise_cross_entropy
from bascule.core.ball import Ball, Norm
from bascule.core.catalog import component

_LOSSES: dict[str, AimedLoss] = {
    "ce": lambda logits, y, target: precise_cross_entropy(logits, y),
    "dlr": lambda logits, y, target: dlr(logits, y),
    "ce-targeted": lambda logits, y, target: -precise_cross_entropy(logits, target),
    "dlr-targeted": dlr_targeted,
}


class _Search(NamedTuple):
    """Where a search begins, and how it goes on."""

    start: Callable[..., Tensor]
    walk: Callable[..., Searched]


def _anywhere(ball: Ball, x: Tensor, *, generator: torch.Generator) -> Tensor:
    return ball.random_point(x, generator=generator)


_EVERYWHERE = _Search(_anywhere, auto_pgd)
_SEARCHES: dict[Norm, _Search] = {"linf": _EVERYWHERE, "l2": _EVERYWHERE, "l1": _Search(start_in_l1, auto_pgd_l1)}


@component
class Apgd(Attack):
    """Auto-PGD: projected gradient ascent with momentum that chooses its own step sizes.

    Source: Croce & Hein 2020 (AutoAttack), sections 3 and 4. Steps start at 2 * eps; at checkpoints they are halved,
    and the search returns to its best point, where the loss rose too rarely or no longer. A targeted loss is tried for
    one wrong class after the other, likeliest first, on images that stand. In L1 another search of that name: Croce &
    Hein 2021 ("Mind the box"), which begins in larger balls and chooses how many pixels a step moves.

    Departures: the random start is uniform in the ball instead of on its border (in hundreds of dimensions nearly the
    same); an image is done at its first misclassified iterate; `ce` keeps its value where float32 would round it to 0;
    where the DLR loss is not defined, with two classes (targeted: fewer than four), its numerator alone is used: the
    direction of a step is the same up to the denominator's share.
    """

    mixed_precision: ClassVar[bool] = True

    steps: Annotated[int, Ge(1)] = 100
    """Gradient steps per try, for each target."""
    loss: Literal["ce", "dlr", "ce-targeted", "dlr-targeted"] = "ce"
    """`ce` (cross-entropy), `dlr` (difference of logits ratio), or one of them towards a target class."""
    targets: Annotated[int, Ge(1)] = 9
    """For a targeted loss: number of wrong classes tried, at most all of them."""
    rho: Annotated[float, Gt(0), Lt(1)] = 0.75
    """Share of the steps between two checkpoints that must raise the loss, or the step size is halved; not in L1."""
    eot_iter: Annotated[int, Ge(1)] = 1
    """Passes over which each gradient is averaged, for models with random outputs; an image is then done when it is
    misclassified in all of them, and otherwise gets the iterate with the highest mean loss."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x_adv, unfooled = x.clone(), torch.arange(len(x), device=x.device)
        targets, search = self._targets(model, x, y), _SEARCHES[self.norm]
        while targets:
            tries = together(len(unfooled), len(targets))
            now, targets = targets[:tries], targets[tries:]
            # Drawn for all images, so that nobody's numbers depend on who still stands.
            starts = [search.start(self.ball, x, generator=generator)[unfooled] for _ in now]
            if len(unfooled) == 0:
                continue
            walk = search.walk(
                model,
                x[unfooled].repeat(tries, 1, 1, 1),
                y[unfooled].repeat(tries),
                ball=self.ball,
                start=torch.cat(starts),
                steps=self.steps,
                rho=self.rho,
                loss=_LOSSES[self.loss],
                target=torch.cat([target[unfooled] for target in now]),
                passes=self.eot_iter,
                tries=tries,
            )
            found, fooled = walk.x.unflatten(0, (tries, -1)), walk.fooled.unflatten(0, (tries, -1))
            # The first try that fooled the model, as if they had been made one after the other; else the last one.
            winner = torch.where(fooled.any(0), fooled.byte().argmax(0), tries - 1)
            x_adv[unfooled] = found[winner, torch.arange(len(unfooled), device=x.device)]
            unfooled = unfooled[~fooled.any(0)]
        return x_adv

    def _targets(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The classes to aim at one after the other, each a tensor of shape (B,); the labels for an untargeted loss."""
        if not self.loss.endswith("-targeted"):
            return (y,)
        with torch.no_grad():
            return likeliest_wrong(model(x), y, self.targets).unbind(1)
