"""What a model answers to a set of images under attacks and bounds, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bascule.attack import Attack
from bascule.attack.run import run_attack
from bascule.certify import Certifier
from bascule.certify.run import run_certifier
from bascule.core.images import Shown
from bascule.core.inference import Filled, chunks
from bascule.core.progress import Progress
from bascule.measure import MISSING

BATCH = 500
"""Images per evaluation pass."""


def batches(images: Shown, wanted: NDArray[np.bool_]) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions and images of those wanted."""
    standing = torch.from_numpy(np.flatnonzero(wanted)).to(images.device)
    for part in chunks(len(standing), BATCH, images.device):
        yield standing[part], images.batch(standing[part])


def first_of(images: Shown, wanted: NDArray[np.bool_], count: int) -> tuple[Tensor, Tensor]:
    """The first images of those wanted, `count` at most, with their labels."""
    index = torch.from_numpy(np.flatnonzero(wanted)[:count]).to(images.device)
    return images.batch(index), images.labels[index]


def changed_batches(
    images: Shown, wanted: NDArray[np.bool_], change: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions and images of those wanted, once changed.

    A change may draw: all images are changed, in the order in which `predict` shows them in batches of `BATCH`.
    """
    keep = torch.from_numpy(wanted).to(images.device)
    for index in chunks(len(images), BATCH, images.device):
        x = change(images.batch(index))
        chosen = keep[index]
        if bool(chosen.any()):
            yield index[chosen], x[chosen]


def answers_under(
    attack: Attack,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    labels: Tensor,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> Tensor:
    """The model's answers under the attack for the images given, MISSING for the others; int64 on the CPU.

    Args:
        attack: What to do.
        model: Whom to attack.
        batches: Positions and images, on the device of the model.
        labels: Labels to move away from, for every test image, on that device.
        generator: On that device.
        progress: Where to tell how far it is.
    """
    found, filled = torch.full((len(labels),), MISSING), Filled(model)
    done = fooled = 0
    for index, x in batches:
        y = labels[index]
        result = run_attack(filled, attack, x, y, generator=generator)
        found[index.cpu()] = result.prediction.cpu()
        done, fooled = done + len(index), fooled + int((result.prediction != y).sum())
        progress.update(done, f"fooled {fooled}")
    return found


def radii_under(
    certifier: Certifier,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    labels: Tensor,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> Tensor:
    """Certified radii of the images given; 0 for the others and where nothing is proved. float64 on the CPU.

    Arguments as for `answers_under`; `labels` are the true ones.
    """
    found = torch.zeros(len(labels), dtype=torch.float64)
    done = proved = 0
    for index, x in batches:
        result = run_certifier(model, certifier, x, labels[index], generator=generator)
        # A radius that reaches the one asked for in 32 bits may be below it in 64.
        radius = torch.where(result.certified, result.radius.double().clamp_min(certifier.eps), result.radius)
        found[index.cpu()] = radius.double().cpu()
        done, proved = done + len(index), proved + int(result.certified.sum())
        progress.update(done, f"certified {proved}")
    return found
