"""Whom questions are put to."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bascule.evaluation.subject import BATCH, BATCH_ON_CUDA, batch_size


@dataclass
class There:
    """One image of a size, which says that it is on a device."""

    device: torch.device
    size: tuple[int, int, int]
    labels: Tensor

    def __len__(self) -> int:
        return 1

    def batch(self, index: Tensor) -> Tensor:
        raise AssertionError("read: an image of a folder is decoded for that")


@pytest.mark.parametrize(
    ("device", "size", "count"),
    [
        ("cpu", (1, 28, 28), BATCH),
        ("cuda", (3, 32, 32), BATCH_ON_CUDA),
        ("cuda", (3, 33, 32), BATCH),
    ],
)
def test_images_per_pass_go_by_device_and_size(device: str, size: tuple[int, int, int], count: int) -> None:
    assert batch_size(There(torch.device(device), size, torch.zeros(1))) == count
