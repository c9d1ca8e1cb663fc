"""Perturbing weights while a step is taken."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.restore import buffers_kept
from bascule.training.contract import Objective

_TINY = 1e-20
"""Added to the length of a gradient, which may be zero."""


@component
class WeightPerturbation:
    """Adversarial weight perturbation: a step descends where its loss is high, a step of ascent from the weights.

    Each weight w (of more than one dimension, so no bias and no norm) with the gradient g of the objective's loss is
    moved to w + gamma * |w| * g / |g|. The loss is differentiated there, on the same images; then the weights are put
    back and the optimiser takes its step. It costs one more forward and backward pass.

    Source: Wu, Xia & Wang 2020 (AWP), section 4 and algorithm 1, whose code is csdongxian/AWP: gamma 0.005, in
    the code from epoch 10 of 200 on with TRADES (`warmup: 0.05`), and 0.01 throughout with PGD. As there the images are
    searched for on the unperturbed network; the ascent moves no running statistics, the other pass does.
    Departures: weights are put back as they were, where theirs are subtracted from again, which rounds; any objective
    may have it. One that looks for images within its `loss`, not in `inputs`, looks for them twice;
    a course is asked for the loss of its step twice.
    """

    gamma: Annotated[float, Gt(0)] = 0.005
    """Length of the perturbation of each weight, as a share of the weight's own length."""
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the training before it starts."""

    @contextmanager
    def around(
        self,
        objective: Objective,
        model: nn.Module,
        net: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        progress: float,
        generator: torch.Generator,
    ) -> Iterator[Objective]:
        """The weights are perturbed inside the block, and as they were afterwards.

        Args:
            objective: Whose loss is to rise.
            model: The network whose weights they are.
            net: The network, or what stands around it; what `objective` is asked about.
            x: As for `Objective.loss`; so are the others.

        Yields:
            The objective on the images that it has chosen.
        """
        if progress < self.warmup:
            yield objective
            return
        seen = objective.inputs(net, x, y, progress=progress, generator=generator)
        chosen = _on(objective, seen)
        weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        with buffers_kept(model):
            loss = chosen.loss(net, x, y, progress=progress, generator=generator)
            slopes = torch.autograd.grad(loss, weights, allow_unused=True) if weights else ()
        moved = [(w, w.detach().clone(), slope) for w, slope in zip(weights, slopes, strict=True) if slope is not None]
        with torch.no_grad():
            for w, _, slope in moved:
                w.add_(slope * (self.gamma * w.norm() / (slope.norm() + _TINY)))
        try:
            yield chosen
        finally:
            with torch.no_grad():
                for w, before, _ in moved:
                    w.copy_(before)


def _on(objective: Objective, seen: Tensor) -> Objective:
    """The same objective, whose `inputs` are these images: what they are is not looked for a second time."""
    chosen = copy.copy(objective)
    object.__setattr__(chosen, "inputs", lambda *_, **__: seen)  # components are frozen
    return chosen
