"""Toy sets whose features are their pixels, so that every number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bascule.core.images import Images


@pytest.fixture
def vectors() -> Callable[..., Images]:
    """Images 1 x 1 x D from rows of whole numbers 0..255."""

    def make(rows: Tensor, labels: Tensor, classes: int | None = None) -> Images:
        pixels = rows.to(torch.uint8).reshape(len(rows), 1, 1, -1)
        count = int(labels.max()) + 1 if classes is None else classes
        return Images(
            pixels=pixels, labels=labels.long(), ids=torch.arange(len(rows)), classes=tuple(map(str, range(count)))
        )

    return make


@pytest.fixture
def reader() -> Callable[..., nn.Module]:
    """A model whose features are the pixels themselves, in [0, 1], and whose logits are the first pixels x 10."""

    def make(width: int, classes: int) -> nn.Module:
        layer = nn.Linear(width, classes)
        nn.init.zeros_(layer.bias)
        layer.weight.data.copy_(10 * torch.eye(classes, width))
        return nn.Sequential(nn.Flatten(), layer)

    return make
