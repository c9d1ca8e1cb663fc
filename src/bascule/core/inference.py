"""Predictions of a model over a whole set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.ahead import read_batches
from bascule.core.errors import RequestError
from bascule.core.images import Images, Shown
from bascule.core.restore import evaluating, full_precision
from bascule.core.text import count

FILL = 4
"""Images by which a batch is filled up on the CPU."""


class Filled(nn.Module):
    """A model whose batches are filled up to a multiple of four images on the CPU.

    Matrix products over 1, 3, 5-7 or 9-11 images are split by the number of threads, and so rounded by it; those over
    4, 8 and 12 images and more are not (torch 2.13 with MKL; MNIST, digits and CIFAR-10 networks, 1 to 400 images, one
    thread against two: logits and gradients bit-equal). Where few images survive an attack, a rounding can decide.

    Args:
        model: From [0, 1] images to logits, each image for itself.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the images given, B x K."""
        missing = -len(x) % FILL if x.device.type == "cpu" else 0
        logits: Tensor = self.model(torch.cat([x, x[-1:].detach().expand(missing, -1, -1, -1)]) if missing else x)
        return logits[: len(x)]


def chunks(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Positions 0..count-1 in pieces of at most `size`; none where there are none."""
    if count:
        yield from torch.arange(count, device=device).split(size)


def labels_of(logits: Tensor) -> Tensor:
    """The label with the largest logit of each row, int64.

    Raises:
        RequestError: A logit is not a number, so nobody can say which is the largest.
    """
    broken = int(logits.isnan().any(1).sum())
    if broken:
        raise RequestError(
            f"the model answers {broken} of the {count(len(logits), 'image')} that were tried with NaN; such a model "
            "has no accuracy"
        )
    return logits.argmax(1)


@torch.no_grad()
def check_answers(model: nn.Module, images: Shown, *, batch_size: int = 1000) -> None:
    """Refuse a model that does not answer every image with numbers: a defence would judge it by nothing.

    Args:
        model: From [0, 1] images to logits, on the images' device.
        images: The set.
        batch_size: Images per pass.

    Raises:
        RequestError: A logit is NaN or infinite.
    """
    broken = 0
    with evaluating(model), full_precision(images.device):
        for index in chunks(len(images), batch_size, images.device):
            broken += int((~model(images.batch(index)).isfinite().all(1)).sum())
    if broken:
        raise RequestError(
            f"the model answers {broken} of {count(len(images), 'image')} with NaN or infinite logits: it is broken, "
            "and nothing that is found in it would hold"
        )


def entropy_of(logits: Tensor) -> Tensor:
    """Entropy of the prediction of each row of B x K logits, in nats, shape (B,)."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


@torch.no_grad()
def predict(
    model: nn.Module, images: Shown, *, batch_size: int = 1000, change: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Tensor:
    """The model's label for every image, int64 on the CPU, in eval mode and full precision.

    Args:
        model: From [0, 1] images to logits, on the images' device.
        images: The set.
        batch_size: Images per pass; has no effect on the result but rounding.
        change: Applied first to each batch, in order: from positions and [0, 1] images to images.

    Raises:
        RequestError: A logit is not a number.
    """
    labels = []
    with evaluating(model), full_precision(images.device):
        for index, x in read_batches(images, chunks(len(images), batch_size, images.device)):
            labels.append(labels_of(model(x if change is None else change(index, x))).cpu())
    return torch.cat(labels)


def accuracy_on(model: nn.Module, images: Images) -> float:
    """Share of images the model gives their label."""
    return (predict(model, images) == images.labels.cpu()).double().mean().item()


@torch.no_grad()
def cross_entropies(model: nn.Module, images: Shown, *, batch_size: int = 1000) -> Tensor:
    """The cross-entropy of every image with its label, float32, shape (N,), in eval mode and full precision.

    Args:
        model: From [0, 1] images to logits, on the images' device.
        images: The set.
        batch_size: Images per pass; has no effect on the result but rounding.
    """
    with evaluating(model), full_precision(images.device):
        parts = [
            F.cross_entropy(model(x), images.labels[index], reduction="none")
            for index, x in read_batches(images, chunks(len(images), batch_size, images.device))
        ]
    return torch.cat(parts).float()
