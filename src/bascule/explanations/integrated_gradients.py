"""Gradients along the way from a plain image."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.optional import import_optional
from bascule.explanations.contract import HeatMap
from bascule.explanations.gradient import ScoreName, score_of


@component
class IntegratedGradients(HeatMap):
    """Integrated gradients (Sundararajan et al. 2017, section 3), through captum: absolute, channels summed.

    A pixel that has the baseline's value gets no heat, so a black pixel never does by default.
    """

    follows_gradients: ClassVar[bool] = True

    score: ScoreName = "logit"
    """`logit`: the label's logit; `loss`: the cross-entropy with the label."""
    baseline: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Grey level of the image without content that the way starts from."""
    steps: Annotated[int, Ge(1)] = 50
    """Points of the Gauss-Legendre rule on the straight way; one backward pass each."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.attributions(model, x, y).abs().sum(1)

    def attributions(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """What each entry adds to the score, signed, B x C x H x W.

        They sum to the score's difference between image and baseline, as far as the steps suffice (completeness).
        """
        method = import_optional("captum.attr", extra="explain").IntegratedGradients(score_of(model, self.score))
        attribution: Tensor = method.attribute(
            x,
            baselines=self.baseline,
            additional_forward_args=(y,),
            n_steps=self.steps,
            internal_batch_size=len(x),  # one step at a time
        )
        return attribution
