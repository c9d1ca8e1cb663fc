"""What the tests of training share: a few real images, networks with and without memory, and kept checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.images import Images, Splits
from bascule.testing.courses import Kept


@pytest.fixture(scope="session")
def few(digits: Splits) -> Images:
    """70 images: four batches of 16 and a rest of 6."""
    return digits.train.at(torch.arange(70))


@pytest.fixture
def make_net() -> Callable[..., nn.Module]:
    """A small network for digits with batch norm, and with dropout unless told otherwise; its weights by seed."""

    def make(seed: int = 0, *, dropout: float = 0.2) -> nn.Module:
        with rng.borrowed_global_stream(seed, "net"):
            return nn.Sequential(
                nn.Conv2d(1, 4, 3, stride=2),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.Flatten(),
                nn.Dropout(dropout),
                nn.Linear(36, 10),
            ).train()

    return make


@pytest.fixture
def linear() -> Callable[..., nn.Module]:
    """Logits `weight . x + bias`, for weights K x D of images of D pixels."""

    def make(weight: list[list[float]], bias: list[float] | None = None) -> nn.Module:
        layer = nn.Linear(len(weight[0]), len(weight))
        layer.weight.data.copy_(torch.tensor(weight))
        layer.bias.data.copy_(torch.tensor(bias or [0.0] * len(weight)))
        return nn.Sequential(nn.Flatten(), layer).train()

    return make


class Recorder(nn.Module):
    """Passes images on to a network and keeps every batch it was called with, in which mode, frozen or not."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []
        self.frozen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        self.modes.append(self.training)
        self.frozen.append(not any(parameter.requires_grad for parameter in self.parameters()))
        return self.net(x)


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def kept() -> type[Kept]:
    return Kept
