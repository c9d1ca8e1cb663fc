"""Names beside the marks of a picture, where they fit without covering anything. Pixels, y upwards."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_GAP = 4
_MARK = 7
"""Half a mark's side, with a little air."""


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two share more than a border."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        """Whether the other lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


@dataclass(frozen=True)
class Point:
    """A mark with its intervals."""

    x: float
    y: float
    left: float
    bottom: float
    right: float
    top: float

    def boxes(self) -> tuple[Box, Box, Box]:
        """What it covers: the mark, the bar across, the bar up."""
        return (
            Box(self.x - _MARK, self.y - _MARK, self.x + _MARK, self.y + _MARK),
            Box(self.left, self.y - 2, self.right, self.y + 2),
            Box(self.x - 2, self.bottom, self.x + 2, self.top),
        )


@dataclass(frozen=True)
class Label:
    """Where a name goes: `x` is its start, middle or end, `y` its base line."""

    text: str
    x: float
    y: float
    anchor: Literal["left", "center", "right"]
    box: Box


def width_of(text: str, size: float) -> float:
    """About how wide a text is; the page's font is not known, so rather too wide."""
    return size * sum(_letter_width(letter) for letter in text)


def _letter_width(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    return 1.05 if unicodedata.east_asian_width(letter) in "WF" else 0.6


def shortened(text: str, *, size: float, width: float) -> str:
    """The text, or as much of its start as fits with an ellipsis."""
    if width_of(text, size) <= width:
        return text
    kept = text
    while kept and width_of(kept + "…", size) > width:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def place(names: Sequence[str], points: Sequence[Point], *, inside: Box, size: float) -> list[Label | None]:
    """A place for each name in turn; None where every place would cover a mark, a bar or an earlier name."""
    taken = [box for point in points for box in point.boxes()]
    labels: list[Label | None] = []
    for name, point in zip(names, points, strict=True):
        label = next(
            (
                label
                for label in _candidates(name, point, size)
                if inside.holds(label.box) and not any(label.box.meets(box) for box in taken)
            ),
            None,
        )
        labels.append(label)
        if label is not None:
            taken.append(label.box)
    return labels


def _candidates(name: str, point: Point, size: float) -> list[Label]:
    """The four corners between the bars, then the ends of the bars."""
    right, left = point.x + _MARK + _GAP, point.x - _MARK - _GAP
    up, down = point.y + _GAP + size / 2, point.y - _GAP - size / 2
    past_right, past_left = max(point.right, point.x + _MARK) + _GAP, min(point.left, point.x - _MARK) - _GAP
    above = max(point.top, point.y + _MARK) + _GAP + size / 2
    below = min(point.bottom, point.y - _MARK) - _GAP - size / 2
    return [
        _label(name, right, up, "left", size),
        _label(name, right, down, "left", size),
        _label(name, left, up, "right", size),
        _label(name, left, down, "right", size),
        _label(name, past_right, point.y, "left", size),
        _label(name, past_left, point.y, "right", size),
        _label(name, point.x, above, "center", size),
        _label(name, point.x, below, "center", size),
    ]


def _label(name: str, x: float, middle: float, anchor: Literal["left", "center", "right"], size: float) -> Label:
    width = width_of(name, size)
    left = x - {"left": 0.0, "center": width / 2, "right": width}[anchor]
    box = Box(left, middle - size * 0.6, left + width, middle + size * 0.6)
    return Label(name, x, middle - size * 0.35, anchor, box)
