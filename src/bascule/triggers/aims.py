"""Which label a trigger aims at, class by class."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

NOWHERE = -1
"""The aim of a class whose triggered images are not meant to move."""

Aims = tuple[int, ...]
"""For each class the label that its triggered images are meant to be taken for, or NOWHERE. Where every class
but the target aims at the target, None stands in its place."""


def all_to_all(classes: int) -> Aims:
    """Every class at the next one, the last at the first: (label + 1) mod `classes`."""
    return tuple((label + 1) % classes for label in range(classes))


def from_sources(sources: Collection[int], target: int, classes: int) -> Aims:
    """The source classes at the target, the others nowhere."""
    return tuple(target if label in sources else NOWHERE for label in range(classes))


def aim_of(labels: Tensor, target: int | None, aims: Aims | None) -> Tensor:
    """For each of these labels the one that is aimed at; NOWHERE where none is. int64, of their shape and device."""
    if aims is not None:
        return torch.tensor(aims, device=labels.device)[labels]
    aimed = torch.full_like(labels, NOWHERE if target is None else target)
    return aimed if target is None else aimed.masked_fill(labels == target, NOWHERE)
