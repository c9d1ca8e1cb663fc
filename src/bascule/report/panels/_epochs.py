"""Small axes over the epochs of a training."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bascule.report.drawing import svg

WIDTH = 300


def epoch_axes(last: float, *, height: int = 170, left: int = 44, top: int = 10, **settings: Any) -> Axes:
    """Axes over the epochs up to the last."""
    axes = svg.axes_of(WIDTH, height, left=left, right=10, top=top, bottom=42)
    axes.set(xlim=(0, last * 1.02), xlabel="epoch", **settings)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    return axes
