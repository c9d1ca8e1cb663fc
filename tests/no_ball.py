"""Attacks whose threat model is no ball: what they may do to little images in tests, with little search."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "patch": {"size": 4, "steps": 10},
    "spatial": {"degrees": 40.0, "pixels": 2.0, "angles": 5, "shifts": 3},
}
SMALLER: dict[str, dict[str, Any]] = {
    "patch": {"size": 1},
    "spatial": {"degrees": 10.0, "pixels": 0.5},
}
"""Settings that leave a smaller part of the same."""
