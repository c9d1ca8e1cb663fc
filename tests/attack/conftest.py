from __future__ import annotations

from typing import NamedTuple

import pytest
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.inference import predict
from bascule.train._loop import train
from bascule.train._settings import Training


class Trained(NamedTuple):
    """A net with ordinary training, in eval mode, and held-out images it gets right."""

    model: nn.Module
    x: Tensor
    y: Tensor


@pytest.fixture(scope="session")
def trained() -> Trained:
    train_set, test_set = catalog.build("data", "digits").load([])
    model = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32}).initialised((1, 8, 8), 10, seed=0)
    train(model, train_set, Training(objective=catalog.build("train", "standard"), epochs=8, lr=5e-3), seed=0)
    model.eval()
    right = (predict(model, test_set) == test_set.labels).nonzero().squeeze(1)
    assert len(right) > 300
    return Trained(model, test_set.batch(right), test_set.labels[right])
