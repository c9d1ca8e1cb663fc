"""Stamping images as if they were saved to a file in between."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bascule.core.images import Images, Shown, as_bytes, as_floats
from bascule.core.returned import returned
from bascule.triggers.contract import Trigger

_CHUNK = 1024
_PERTURBED = 250
"""Images perturbed at a time: the network's passes need more memory than a trigger."""

Perturb = Callable[[Tensor, Tensor], Tensor]
"""(images B x C x H x W in [0, 1], their labels (B,)) -> images that some network no longer takes for their labels, of
the same shape and type and on the same device. Made by whoever has the network and the attack; draws from a generator
of its own."""


def stamp_bytes(
    images: Images, index: Tensor, trigger: Trigger, *, generator: torch.Generator, perturb: Perturb | None = None
) -> Tensor:
    """The images at these positions, perturbed first where asked, with the trigger on them, as uint8.

    Rounded to what they would be once saved to a file.
    """
    parts = []
    for part in index.split(_CHUNK):
        x = images.batch(part) if perturb is None else _perturbed(images, part, perturb)
        stamped = trigger.stamp_at(images, part, x, generator=generator)
        parts.append(as_bytes(returned(stamped, Tensor, who=trigger, method="stamp")))
    return torch.cat(parts)


def _perturbed(images: Images, index: Tensor, perturb: Perturb) -> Tensor:
    parts = []
    for part in index.split(_PERTURBED):
        x = images.batch(part)
        perturbed = perturb(x, images.labels[part])
        if perturbed.shape != x.shape:
            raise ValueError(f"perturbed images have shape {tuple(perturbed.shape)}, the images {tuple(x.shape)}")
        if not bool(perturbed.isfinite().all()):
            raise ValueError("perturbed images are not finite")
        parts.append(perturbed.to(x).clamp(0, 1))
    return torch.cat(parts)


def stamp(trigger: Trigger, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """A batch of [0, 1] images with the trigger on them, rounded as if saved to a file in between."""
    stamped = returned(trigger.stamp(x, generator=generator), Tensor, who=trigger, method="stamp")
    return as_floats(as_bytes(stamped)).to(x)


def stamp_at(
    trigger: Trigger, images: Shown, index: Tensor, *, generator: torch.Generator, x: Tensor | None = None
) -> Tensor:
    """`stamp`, of the images of a test set at these positions.

    Args:
        trigger: What to stamp; some know their images by their numbers.
        images: The test set.
        index: Positions in it, int64.
        generator: For what is drawn.
        x: These images where they have been perturbed; by default as they are.
    """
    x = images.batch(index) if x is None else x
    return as_floats(as_bytes(trigger.stamp_at(images, index, x, generator=generator))).to(x)


def other_places(index: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """For each of these positions another one of `count`, drawn at random; itself where there is no other."""
    steps = torch.randint(1, max(2, count), index.shape, generator=generator, device=generator.device)
    return (index + steps.to(index.device)) % max(1, count)
