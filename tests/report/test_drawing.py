"""Marks that differ, labels that cover nothing, and drawings on shared axes that are as those on their own."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from bascule.report.drawing import labels, marks, svg
from bascule.report.drawing.figure import Form


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


def plain() -> Axes:
    axes = svg.axes_of(300, 200, left=40, right=10, top=10, bottom=40)
    axes.set(xlim=(0, 10), ylim=(0, 1), xlabel="epoch")
    axes.plot([0, 10], [0.5, 0.5], color=svg.RULE)
    return axes


def drawn(axes: Axes, number: int) -> svg.Drawing:
    axes.axvline(number, color=svg.INK)
    axes.plot([0, number], [0, 0.1 * number], color=marks.mark(number).colour, marker="o", clip_on=False, gid="here")
    axes.fill_between([0, number], [0, 0], [1, 0], color=svg.INK, alpha=0.2)
    axes.annotate("a name", (number, 0.5))
    return svg.svg(axes, name="chart", label="a chart", texts={"a name": "<$>"}, titles={"here": "a point"})


@pytest.mark.parametrize("form", ["svg", "png"])
def test_drawings_on_shared_axes_are_as_those_on_their_own(form: Form, tmp_path: Path) -> None:
    """In any order, inside the block and outside, for the page and for files."""
    with svg.drawing():
        alone = [drawn(plain(), number) for number in (3, 7)]
        shared = [drawn(svg.shared_axes("one", plain), number) for number in (3, 7)]
        assert shared[0].axes is shared[1].axes
        assert svg.shared_axes("another", plain) is not shared[0].axes
        inside = [one.__html__() for one in reversed(shared)]
    with svg.drawing():
        assert svg.shared_axes("one", plain) is not shared[0].axes
    assert inside == [one.__html__() for one in reversed(shared)] == [one.__html__() for one in reversed(alone)]
    for one, other in zip(shared, alone, strict=True):
        for drawing, name in ((one, "one"), (other, "other")):
            drawing.save(tmp_path / name, form)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
