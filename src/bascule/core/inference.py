"""Predictions of a model over a whole set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from bascule.core.images import Images
from bascule.core.restore import evaluating


def chunks(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Positions 0..count-1 in pieces of at most `size`."""
    yield from torch.arange(count, device=device).split(size)


@torch.no_grad()
def predict(
    model: nn.Module, images: Images, *, batch_size: int = 1000, change: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The model's label for every image, int64 on the CPU, in eval mode.

    Args:
        model: From [0, 1] images to logits, on the images' device.
        images: The set.
        batch_size: Images per pass; has no effect on the result but rounding.
        change: Applied to each batch of [0, 1] images first, in order.
    """
    found = []
    with evaluating(model):
        for index in chunks(len(images), batch_size, images.device):
            x = images.batch(index)
            found.append(model(x if change is None else change(x)).argmax(1).cpu())
    return torch.cat(found)
