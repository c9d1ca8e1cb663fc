"""One colour and one marker shape per row, the same in every picture of the page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito 2008, without black and yellow, which vanish on a dark and on a light page."""
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
"""Markers of matplotlib. Their number and that of the colours share no factor, so pairs repeat only after 42 rows."""

_SIDE = 14


@dataclass(frozen=True)
class Mark:
    """How a row is drawn."""

    colour: str
    shape: str

    @property
    def svg(self) -> Markup:
        """The mark alone, to stand beside a name. Says nothing to screen readers: the name does."""
        return Markup(
            '<svg class="mark" viewBox="0 0 {side} {side}" width="{side}" height="{side}" aria-hidden="true">'
            '<polygon points="{points}" fill="{colour}"/></svg>'
        ).format(side=_SIDE, points=_corners(self.shape), colour=self.colour)


@cache
def _corners(shape: str) -> str:
    """Of a marker, for a polygon."""
    style = MarkerStyle(shape)
    place = Affine2D().scale(_SIDE - 5, 5 - _SIDE).translate(_SIDE / 2, _SIDE / 2)
    outline = np.asarray(style.get_path().transformed(style.get_transform() + place).to_polygons()[0])
    return " ".join(f"{x:.3g},{y:.3g}" for x, y in outline)


def mark(number: int) -> Mark:
    """The mark of the row at place `number`, from 0."""
    return Mark(COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)])
