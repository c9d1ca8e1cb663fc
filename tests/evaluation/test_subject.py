"""Whom questions are put to."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bascule.core.images import Images
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
        return torch.zeros(1, *self.size)


@pytest.mark.parametrize(
    ("device", "size", "count"),
    [
        ("cpu", (1, 28, 28), BATCH),
        ("cuda", (3, 32, 32), BATCH_ON_CUDA),
        ("cuda", (3, 33, 32), BATCH),
    ],
)
def test_images_per_pass_go_by_device_and_size(
    monkeypatch: pytest.MonkeyPatch, device: str, size: tuple[int, int, int], count: int
) -> None:
    monkeypatch.setattr(torch, "arange", lambda count, device: torch.zeros(count, dtype=torch.int64))
    assert batch_size(There(torch.device(device), size, torch.zeros(1))) == count


def test_an_image_on_the_cpu_is_not_read_for_it() -> None:
    class Unread(Images):
        def batch(self, index: Tensor) -> Tensor:
            raise AssertionError("read")

    one = torch.zeros(1, dtype=torch.int64)
    images = Unread(pixels=torch.zeros(1, 1, 2, 2, dtype=torch.uint8), labels=one, ids=one, classes=("a",))
    assert batch_size(images) == BATCH
