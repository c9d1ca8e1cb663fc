"""Training curves: loss per epoch, one small picture per row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bascule.record.plan import came_as_it_is
from bascule.report.drawing import svg
from bascule.report.panels._epochs import epoch_axes
from bascule.report.view import RowView, View
from bascule.report.words import count, percent_pair

TITLE = "Training curves"
PLACE = 130

_HELD_OUT = {"held_out_robust_accuracy": "held-out robust accuracy", "held_out_accuracy": "held-out accuracy"}
"""What a best epoch is kept by: its name for people."""

Line = tuple[list[float], list[float]]
"""Epochs, and the loss after each."""


def context(view: View) -> Mapping[str, Any] | None:
    """A picture per row; nothing before the first model is trained."""
    lines = {number: own for number, row in enumerate(view.rows) if (own := _lines(row))}
    if not lines:
        return None
    span = [loss for own in lines.values() for _, losses in own for loss in losses]
    limits = 1.05 * min(0, *span), 1.05 * max(0, *span) or 1  # what an objective unlearns has a loss below zero
    pictures = [
        (row, _picture(row, lines[number], number=number, limits=limits), _caption(row, lines[number]))
        for number, row in enumerate(view.rows)
        if number in lines
    ]
    rows = (row for number, row in enumerate(view.rows) if number not in lines)
    without = [row for row in rows if not came_as_it_is(row.result.settings)]  # of these nothing is ever trained
    return {
        "pictures": pictures,
        "missing": [row for row in without if row.result.settings.get("repair") is None],
        "repaired": [row for row in without if row.result.settings.get("repair") is not None],
    }


def _lines(row: RowView) -> list[Line]:
    lines = []
    for cell in row.cells:
        entries = [entry for entry in cell.record.curve() if math.isfinite(entry["loss"])]
        if entries:
            lines.append(([entry["epoch"] for entry in entries], [entry["loss"] for entry in entries]))
    return lines


def _caption(row: RowView, lines: Sequence[Line]) -> str:
    """How many seeds; where their best epochs are kept, which ones and how much better they are than the last."""
    seeds = count(len(lines), "seed")
    found = [kept for cell in row.cells if (kept := cell.info.get("kept")) is not None]
    name = next((name for name in _HELD_OUT if found and all(name in kept for kept in found)), None)
    if name is None:
        return seeds
    epochs = ", ".join(map(str, sorted({kept["epoch"] for kept in found})))
    best, last = percent_pair(*(statistics.mean(kept[key] for kept in found) for key in (name, "last")))
    return f"{seeds}; epoch {epochs} kept: {_HELD_OUT[name]} {best}, after the last epoch {last}"


def _picture(row: RowView, lines: Sequence[Line], *, number: int, limits: tuple[float, float]) -> svg.Drawing:
    with svg.drawing():
        axes = epoch_axes(max(epochs[-1] for epochs, _ in lines), steps=4, ylim=limits, ylabel="loss")
        for epochs, losses in lines:
            dot = "." if len(epochs) == 1 else ""
            axes.plot(epochs, losses, color=row.mark.colour, linewidth=1.25, marker=dot, clip_on=False)
        return svg.svg(axes, name=f"curve-{number}", label=_spoken(row, lines))


def _spoken(row: RowView, lines: Sequence[Line]) -> str:
    first, last = ([losses[place] for _, losses in lines] for place in (0, -1))
    epochs = max(round(epochs[-1]) for epochs, _ in lines)
    start, end = sum(first) / len(first), sum(last) / len(last)
    return (
        f"Training loss of {row.name}, mean of {count(len(lines), 'seed')}: "
        f"from {start:.2g} after the first epoch to {end:.2g} after {count(epochs, 'epoch')}."
    )
