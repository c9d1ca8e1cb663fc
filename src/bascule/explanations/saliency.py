"""Plain input gradients."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.explanations.contract import HeatMap
from bascule.explanations.gradient import ScoreName, input_gradient


@component
class Saliency(HeatMap):
    """Absolute gradient of the score at each pixel (Simonyan et al. 2014), one backward pass.

    With the defaults and the true label it is what Figure 3 of Weng, Lee & Wu 2020 shows, without its sign: the
    gradient of the cross-entropy, clipped at 3 standard deviations of its entries. They colour the signed gradient,
    channel by channel. Clipping keeps a few pixels from taking the whole heat.
    """

    follows_gradients: ClassVar[bool] = True

    score: ScoreName = "loss"
    """`loss`: the cross-entropy with the label; `logit`: the label's logit."""
    channels: Literal["max", "sum"] = "max"
    """How the channels of a pixel become one number."""
    clip: Annotated[float, Gt(0)] | None = 3.0
    """Largest absolute entry that counts, in standard deviations of the image's gradient; None clips nothing."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        gradient = input_gradient(model, x, y, score=self.score)
        heat = torch.minimum(gradient.abs(), self._largest(gradient))
        return heat.amax(1) if self.channels == "max" else heat.sum(1)

    def _largest(self, gradient: Tensor) -> Tensor:
        """The largest absolute entry that counts in each image, B x 1 x 1 x 1."""
        entries = gradient.flatten(1).double()  # in 32 bits the squares of a confident model's gradient are 0
        largest = entries.abs().amax(1)
        if self.clip is not None:
            spread = self.clip * entries.std(1, correction=0)
            largest = torch.where(spread > 0, spread, largest)
        return largest.to(gradient).reshape(-1, 1, 1, 1)
