"""Where the models put the training images that carry the target's label: poisoned ones among clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bascule.report.drawing import svg
from bascule.report.evidence import Evidence, evidence
from bascule.report.view import RowView, View
from bascule.report.words import count, percent

TITLE = "Where the poison lies"
PLACE = 110

_WIDTH, _HEIGHT = 240, 220
_POINTS = 300
"""Most points of each kind that are drawn."""
_CHARTS = 24
_NEAR = 10
"""Neighbours that are counted."""
_COUNTED = 1000
"""Poisoned images whose neighbours are counted."""

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Plot:
    """The plane of one model."""

    row: RowView
    method: str
    picture: svg.Drawing | None
    seed: str
    near: str
    """Poisoned share of the nearest neighbours of poisoned images."""
    share: str
    """Poisoned share of all."""


def context(view: View) -> Mapping[str, Any] | None:
    """The first seed of every row that has a projection; nothing where there is none."""
    parts = [part for one in evidence(view, "explain") if (part := one.having("points")) is not None]
    plots = [plot for place, part in enumerate(parts) if (plot := _plot(place, part)) is not None]
    return {"plots": plots, "near": _NEAR} if plots else None


def _plot(place: int, part: Evidence) -> Plot | None:
    seed, finding = next(iter(part.models.items()))
    points = np.asarray(finding.arrays["points"], dtype=np.float64)
    known = np.isfinite(points).all(1)
    if not known.any() or "poisoned" not in finding.arrays:  # nobody knows which are poisoned
        return None
    points, poisoned = points[known], np.asarray(finding.arrays["poisoned"], dtype=bool)[known]
    near = neighbours(points, poisoned)
    return Plot(
        row=part.row,
        method=part.method,
        picture=_picture(place, part, points, poisoned) if place < _CHARTS else None,
        seed=f"seed {seed}",
        near="—" if near is None else percent(near),
        share=percent(float(poisoned.mean())),
    )


def neighbours(points: Points, poisoned: Mask) -> float | None:
    """Poisoned share of the ten nearest neighbours of the poisoned images; None without enough images of both kinds."""
    if not poisoned.any() or poisoned.all() or len(points) <= _NEAR:
        return None
    asked = np.flatnonzero(poisoned)[:_COUNTED]
    places = np.asarray(cKDTree(points).query(points[asked], k=_NEAR + 1)[1])
    # Images at the very same place may come before the image itself.
    others = places != asked[:, None]
    others[others.all(1), -1] = False
    return float(poisoned[places[others]].mean())


def _thinned(points: Points) -> Points:
    kept = np.unique(np.linspace(0, len(points) - 1, min(_POINTS, len(points))).round().astype(int))
    return points[kept] if len(points) else points


def _picture(place: int, part: Evidence, points: Points, poisoned: Mask) -> svg.Drawing:
    with svg.drawing():
        axes = svg.axes_of(_WIDTH, _HEIGHT, left=34, right=8, top=8, bottom=28)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        clean, planted = _thinned(points[~poisoned]), _thinned(points[poisoned])
        axes.plot(
            clean[:, 0], clean[:, 1], marker="o", markersize=4, markerfacecolor="none", linestyle="none",
            markeredgecolor=svg.INK, markeredgewidth=0.5, alpha=0.6,
        )  # fmt: skip
        axes.plot(
            planted[:, 0], planted[:, 1], marker="x", markersize=4, linestyle="none", markeredgewidth=1.2,
            markeredgecolor=part.row.mark.colour,
        )  # fmt: skip
        label = (
            f"{part.row.name}: {count(len(points), 'training image')} with the target's label in the plane, "
            f"{int(poisoned.sum())} of them poisoned."
        )
        return svg.svg(axes, name=f"latents-{place}", label=label)
