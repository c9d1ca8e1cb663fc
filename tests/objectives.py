"""Every training objective, with a value for each setting that has no default."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bascule.core import catalog
from bascule.core.images import Images, as_bytes
from bascule.core.rng import stream
from bascule.training.contract import Course, Objective, Samples

REQUIRED: dict[str, Any] = {
    "eps": 0.1,
    "attacks": (
        {"name": "pgd", "eps": 0.1, "steps": 2},
        {"name": "spatial", "search": "random", "degrees": 10.0, "pixels": 0.5, "tries": 2},
    ),
}
"""By the setting's name."""


def spec_of(name: str) -> dict[str, Any]:
    """As a study writes it."""
    fields = catalog.documentation("train", name).fields
    return {"name": name, **{field.name: REQUIRED[field.name] for field in fields if field.default is None}}


def objective(name: str) -> Objective:
    """The objective of this name."""
    return catalog.build("train", spec_of(name))


EPOCHS = 20
"""Of the training in which a course is asked for the loss of a step."""


def at_step(objective: Objective, x: Tensor, y: Tensor, progress: float) -> Objective:
    """The objective of a step on all of a set of images, at this share of a training; of any but a course, itself."""
    if not isinstance(objective, Course):
        return objective
    places = torch.arange(len(x))
    images = Images(pixels=as_bytes(x), labels=y, ids=places, classes=tuple("0123456789"))
    memory = objective.begin(images, epochs=EPOCHS, generator=stream(0, "course"))
    return objective.at(Samples(places, 1 + int(progress * EPOCHS), EPOCHS, memory))
