"""Small axes over the epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bascule.report.drawing import svg

WIDTH = 300
_LEGEND: dict[str, Any] = {
    "loc": "lower left", "bbox_to_anchor": (-0.12, 1), "ncols": 3, "frameon": False, "borderpad": 0.2,
    "handlelength": 1.5, "handletextpad": 0.4, "columnspacing": 1.0, "fontsize": svg.TEXT_SIZE - 1,
}  # fmt: skip
"""Above the axes."""


def epoch_axes(
    last: float,
    *,
    height: int = 170,
    left: int = 44,
    top: int = 10,
    steps: int = 0,
    legend: Sequence[Mapping[str, Any]] = (),
    **settings: Any,
) -> Axes:
    """Axes over the epochs up to the last, the same for all drawings of a page that ask for the same.

    Args:
        last: The last epoch.
        height: Of the drawing, in pixels.
        left: Pixels beside the axes.
        top: Pixels above them.
        steps: Most steps of the upright axis, where its ticks are not among the settings.
        legend: Lines that a legend above the axes names, as `Line2D` takes them.
        settings: Of the axes: limits, labels, ticks.
    """

    def made() -> Axes:
        axes = svg.axes_of(WIDTH, height, left=left, right=10, top=top, bottom=42)
        axes.set(xlim=(0, last * 1.02), xlabel="epoch", **settings)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        if steps:
            axes.yaxis.set_major_locator(MaxNLocator(steps, steps=[1, 2, 5, 10]))
        if legend:
            axes.legend(handles=[Line2D([], [], **line) for line in legend], **_LEGEND)
        return axes

    return svg.shared_axes(repr((last, height, left, top, steps, legend, settings)), made)
