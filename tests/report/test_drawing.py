"""Marks that differ, and labels that cover nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from bascule.report.drawing import labels, marks


def test_rows_differ_in_colour_and_shape() -> None:
    pairs = [(marks.mark(number).colour, marks.mark(number).shape) for number in range(42)]
    assert len(set(pairs)) == 42
    assert all(first[0] != second[0] and first[1] != second[1] for first, second in pairwise(pairs))


def test_labels_cover_nothing() -> None:
    generator = np.random.default_rng(0)
    inside = labels.Box(0, 0, 400, 400)
    places = generator.uniform(0, 400, (40, 2))
    points = [labels.Point(x, y, x - 9, y - 12, x + 9, y + 12) for x, y in places]
    placed = labels.place([f"row number {n}" for n in range(40)], points, inside=inside, size=12)
    shown = [label for label in placed if label is not None]
    assert len(shown) > 10
    boxes = [label.box for label in shown]
    assert all(inside.holds(box) for box in boxes)
    assert not any(a.meets(b) for place, a in enumerate(boxes) for b in boxes[:place])
    assert not any(box.meets(covered) for box in boxes for point in points for covered in point.boxes())


def test_a_label_without_room_is_left_out() -> None:
    point = labels.Point(50, 50, 50, 50, 50, 50)
    assert labels.place(["much too long a name"], [point], inside=labels.Box(0, 0, 100, 100), size=12) == [None]


def test_long_labels_are_cut() -> None:
    assert labels.shortened("short", size=12, width=100) == "short"
    cut = labels.shortened("対抗的訓練" * 20, size=12, width=100)
    assert cut.endswith("…")
    assert 80 < labels.width_of(cut, 12) <= 100
