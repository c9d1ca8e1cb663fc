"""What the tests of repairs share: random images, and small networks with known weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bascule.core import rng
from bascule.core.images import Images


def _images(count: int, *, channels: int = 1, side: int = 6, classes: int = 3, seed: int = 0) -> Images:
    generator = rng.stream(seed, "images")
    return Images(
        pixels=torch.randint(256, (count, channels, side, side), dtype=torch.uint8, generator=generator),
        labels=torch.randint(classes, (count,), generator=generator),
        ids=torch.arange(count),
        classes=tuple(map(str, range(classes))),
    )


@pytest.fixture
def some() -> Images:
    """50 grey images of 6 x 6 in three classes."""
    return _images(50)


class Residual(nn.Module):
    """A block whose sum has a norm of its own, and a projection that runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.first(x)).relu()
        x = self.norm2(x + self.second(x)).relu()
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def residual() -> nn.Module:
    with rng.borrowed_global_stream(0, "net"):
        return Residual().eval()


@pytest.fixture
def plain() -> nn.Module:
    """Two convolutions and two linear layers, no norm, for 6 x 6 grey images in three classes."""
    with rng.borrowed_global_stream(0, "net"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(45, 7),
            nn.ReLU(),
            nn.Linear(7, 3),
        ).eval()


@pytest.fixture
def sharp(plain: nn.Module) -> nn.Module:
    """The same with larger weights, so that small changes of an image change the answer."""
    with torch.no_grad():
        for p in plain.parameters():
            p *= 3
    return plain
