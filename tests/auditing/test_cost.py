"""What passes take."""

from __future__ import annotations

import torch
from torch import nn

from bascule.auditing.cost import measure_cost
from bascule.core.images import Splits


class Rounding(nn.Module):
    """No gradient comes through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model((x * 16).round() / 16)


def test_the_model_and_the_threads_are_found_as_they_were(trained, digits: Splits) -> None:
    before, gradients = torch.get_num_threads(), [parameter.grad for parameter in trained.model.parameters()]
    cost = measure_cost(trained.model, digits.test)
    assert cost.gradients
    assert cost.forward > 0
    assert cost.both > 0
    assert torch.get_num_threads() == before
    assert all(old is new for old, new in zip(gradients, [p.grad for p in trained.model.parameters()], strict=True))


def test_a_network_without_gradients_is_seen(trained, digits: Splits) -> None:
    cost = measure_cost(Rounding(trained.model), digits.test)
    assert not cost.gradients
    assert cost.both == cost.forward
