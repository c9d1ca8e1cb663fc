"""Unlearning a universal perturbation by implicit hypergradients."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.ball import ball
from bascule.core.batches import batches
from bascule.core.catalog import component, name_of
from bascule.core.gradients import check_differentiable, check_second_derivatives, gradient_of, second_derivatives
from bascule.core.images import Images
from bascule.core.restore import evaluating, frozen
from bascule.repairs.contract import Repair, Repaired


@component
class IBau(Repair):
    """Makes the model keep its labels under the worst perturbation common to all images (I-BAU).

    min over w of max over d of CE(f_w(x + d), y), d within an L2 ball. Every round finds d by gradient ascent over the
    defender's images, then takes steps of Adam along the hypergradient, in which d's own dependence on w is counted by
    fixed-point iterations. Source: Zeng et al. 2022 (Adversarial Unlearning of Backdoors via Implicit Hypergradient),
    algorithm 1.

    Defaults: as in their code, whose rounds are one pass over 5,000 images, 50 steps; the ball is the paper's. Their
    code perturbs 1 % of a batch in the outer problem, the paper all of it: of 1, 0.5, 0.1 and 0.01 the last is the
    largest that costs networks without a backdoor at most two points of accuracy (see docs/guide/repairs.md).
    BackdoorBench has 1e-4 for `lr`.

    Departures: the search takes steps of equal length, 2.5 * radius / search_steps, since the gradient of a confident
    model is too small for a fixed rate; perturbed images are cut to [0, 1]; d is brought back into the ball, also in
    the fixed-point map (their code has none: without it the iterations can grow without bound); the inner problem is
    that of the same batch, in their code always that of the first.
    """

    rounds: Annotated[int, Ge(0)] = 5
    """Times that the perturbation is found anew; 0 changes nothing."""
    steps: Annotated[int, Ge(1)] = 50
    """Steps of the weights per round."""
    search_steps: Annotated[int, Ge(1)] = 50
    """Steps of the perturbation per round, from zero."""
    batch_size: Annotated[int, Ge(1)] = 100
    """Images per step; all of them when there are fewer."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate of the weights, Adam."""
    rms: Annotated[float, Gt(0)] = 0.18
    """Radius of the L2 ball of perturbations as the root mean square over the values of an image, in [0, 1] pixel
    units: 0.18 is a length of 10 on 3 x 32 x 32."""
    penalty: Annotated[float, Ge(0)] = 1e-3
    """Weight of the perturbation's squared length in the inner problem."""
    iterations: Annotated[int, Ge(0)] = 5
    """Fixed-point iterations per hypergradient; 0 takes the perturbation as fixed."""
    share: Annotated[float, Interval(gt=0, le=1)] = 0.01
    """Share of a batch that is perturbed in the outer problem, at least one image; the rest keeps the accuracy."""

    @property
    def follows_gradients(self) -> bool:
        return True

    def check_model(self, model: nn.Module, images: Images) -> None:
        if self.rounds and self.iterations:
            check_second_derivatives(model, _all(images))

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.lr)
        length = 0.0
        if self.rounds:
            few = images.at(torch.arange(min(8, len(images)), device=images.device))
            check_differentiable(model, _all(few), who=name_of(self))
            self.check_model(model, few)
        for _ in range(self.rounds):
            delta = self._universal(model, images, generator=generator)
            for x, y in batches(images, self.batch_size, steps=self.steps, generator=generator):
                for p, g in zip(weights, self._hypergradient(model, weights, delta, x, y), strict=True):
                    p.grad = g
                optimizer.step()
            length = float(delta.norm())
        return Repaired(model, {"perturbation": length} if self.rounds else {})

    def _inner(self, model: nn.Module, delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.penalty * delta.square().sum() - F.cross_entropy(model((x + delta).clamp(0, 1)), y)

    def _universal(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Tensor:
        """A perturbation, 1 x C x H x W, that spoils the model's own predictions, from zero."""
        delta = images.batch(torch.zeros(1, dtype=torch.int64, device=images.device)).mul(0)
        radius = self._radius(delta)
        region = ball("l2", radius)
        with evaluating(model), frozen(model):
            for x, _ in batches(images, self.batch_size, steps=self.search_steps, generator=generator):
                with torch.no_grad():
                    own = model(x).argmax(1)
                delta.requires_grad_(True)
                gradient = gradient_of(self._inner(model, delta, x, own), delta)
                delta = self._within(region.step(delta.detach(), -gradient, 2.5 * radius / self.search_steps))
        return delta

    def _hypergradient(
        self, model: nn.Module, weights: list[nn.Parameter], delta: Tensor, x: Tensor, y: Tensor
    ) -> list[Tensor]:
        """The gradient of the outer loss for the weights, with delta the fixed point of descent on the inner loss."""
        delta = delta.detach().requires_grad_(True)
        count = max(1, round(self.share * len(x)))
        seen = torch.cat([(x[:count] + delta).clamp(0, 1), x[count:]])
        direct, *own = torch.autograd.grad(F.cross_entropy(model(seen), y), [delta, *weights], materialize_grads=True)
        if self.iterations == 0:
            return own
        with second_derivatives():
            slope = gradient_of(self._inner(model, delta, x, y), delta, create_graph=True)
            mapped = self._within(delta - _FIXED_POINT_STEP * slope)
            v = torch.zeros_like(delta)
            for _ in range(self.iterations):
                v = gradient_of(mapped, delta, v, retain_graph=True) + direct
            through = torch.autograd.grad(mapped, weights, v, materialize_grads=True)
        return [g + t for g, t in zip(own, through, strict=True)]

    def _within(self, delta: Tensor) -> Tensor:
        """The nearest point of the ball."""
        radius = self._radius(delta)
        return delta * (radius / delta.norm().clamp_min(radius))

    def _radius(self, delta: Tensor) -> float:
        """Largest L2 length of a perturbation of this shape."""
        return self.rms * math.sqrt(delta.numel())


_FIXED_POINT_STEP = 0.1
"""Step of the descent whose fixed point is meant, as in their code."""


def _all(images: Images) -> Tensor:
    return images.batch(torch.arange(len(images), device=images.device))
