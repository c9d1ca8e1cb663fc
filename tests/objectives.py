"""Every training objective, with a value for each setting that has no default."""

from __future__ import annotations

from typing import Any

from bascule.core import catalog
from bascule.training.contract import Objective

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
