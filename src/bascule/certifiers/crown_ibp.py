"""Linear bounds over intervals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.certifiers.bounds import Intermediate, followed, proved_radius
from bascule.certifiers.contract import Certifier
from bascule.core.catalog import component


@component
class CrownIbp(Certifier):
    """CROWN-IBP (Zhang et al. 2020): intervals inside the network, one backward pass of linear bounds for the margins.

    Each margin is the better of the linear and the interval bound, so no image that `interval` certifies is lost.
    Costs about as much as one backward pass per class. Max-pooling over overlapping windows is bounded from above by a
    constant. Rounding is allowed for as in `interval`.
    """

    intermediate: Intermediate = "interval"
    """`interval`, or `crown` (Zhang et al. 2018): linear bounds for every unit before an activation too.

    `crown` is tighter and costs a backward pass per unit: for small networks.
    """

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        followed(model, x)

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return proved_radius(model, x, y, norm=self.norm, eps=self.eps, linear=True, intermediate=self.intermediate)
