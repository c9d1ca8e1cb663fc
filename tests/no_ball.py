"""Attacks whose threat model is no ball: what they may do to little images in tests, with little search."""

from __future__ import annotations

from typing import Any

from bascule.attacks.pgd import Pgd

SETTINGS: dict[str, dict[str, Any]] = {
    "composite": {
        "attacks": (
            {"name": "spatial", "degrees": 20.0, "pixels": 0.5, "angles": 3, "shifts": 3},
            {"name": "pgd", "eps": 0.1, "steps": 5},
        ),
    },
    "patch": {"size": 4, "steps": 10},
    "spatial": {"degrees": 40.0, "pixels": 2.0, "angles": 5, "shifts": 3},
}
SMALLER: dict[str, dict[str, Any]] = {
    "composite": {"attacks": (Pgd(eps=0.02, steps=5),)},
    "patch": {"size": 1},
    "spatial": {"degrees": 10.0, "pixels": 0.5},
}
"""Settings that leave a smaller part of the same."""
