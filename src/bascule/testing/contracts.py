"""The check of a component of whichever room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bascule.core.catalog import ROOMS
from bascule.testing.architectures import check_architecture
from bascule.testing.attacks import check_attack
from bascule.testing.certifiers import check_certifier
from bascule.testing.demands import demand
from bascule.testing.detectors import check_detector
from bascule.testing.explanations import check_explanation
from bascule.testing.filters import check_filter
from bascule.testing.metrics import check_metric
from bascule.testing.objectives import check_objective
from bascule.testing.repairs import check_repair
from bascule.testing.scanners import check_scanner
from bascule.testing.sources import check_source
from bascule.testing.triggers import check_trigger

CHECKS: dict[str, Callable[..., None]] = {
    "data": check_source,
    "models": check_architecture,
    "poison": check_trigger,
    "attack": check_attack,
    "certify": check_certifier,
    "explain": check_explanation,
    "train": check_objective,
    "filter": check_filter,
    "scan": check_scanner,
    "detect": check_detector,
    "repair": check_repair,
    "measure": check_metric,
}
"""The check of each room."""


def check(component: Any, **about: Any) -> None:
    """The contract of the component's room: `check_attack` for an attack, and so on.

    Args:
        component: With settings that suit the little things it is tried on (see the room's own check).
        about: What the room's own check takes besides, such as `most_on_clean` for a filter.

    Raises:
        AssertionError: It belongs to no room, or does not keep the room's contract; the text says what is wrong.
    """
    room = getattr(type(component), "room", None)
    demand(
        room in ROOMS, f"{type(component).__name__} subclasses no contract of bascule, such as bascule.attacks.Attack"
    )
    CHECKS[str(room)](component, **about)
