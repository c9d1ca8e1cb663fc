"""Training curves: loss per epoch, and what was seen of the model on the way; one small picture per row."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bascule.report.drawing import svg
from bascule.report.tables.tables import UNKNOWN
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, count, percent

TITLE = "Training curves"
PLACE = 130

_WIDTH, _HEIGHT = 300, 170

Line = tuple[list[float], list[float]]
"""Epochs, and the loss after each."""

_SEEN: dict[str, tuple[str, dict[str, Any]]] = {
    "accuracy": ("accuracy", {"linewidth": 1.0}),
    "robust_accuracy": ("robust accuracy", {"linewidth": 1.25, "linestyle": (0, (4, 2))}),
    "asr": ("ASR", {"linewidth": 2.5}),
}
"""What is drawn of what a probe saw: its name for people, and how."""
_KEY: dict[str, Any] = {
    "loc": "lower left", "bbox_to_anchor": (-0.12, 1), "ncols": 3, "frameon": False, "borderpad": 0.2,
    "handlelength": 1.5, "handletextpad": 0.4, "columnspacing": 1.0, "fontsize": svg.TEXT_SIZE - 1,
}  # fmt: skip
"""Of the lines, above them."""
_TAKEN = 0.5
"""ASR from which on a backdoor is said to have been taken up."""


@dataclass(frozen=True)
class Seen:
    """What the probes of a row's models saw, the median of its seeds."""

    row: RowView
    seeds: int
    medians: Mapping[str, Mapping[int, float]]
    """By name, by epoch."""

    def last(self, name: str) -> float | None:
        """At the last look; None where that was not looked at."""
        values = self.medians.get(name)
        return None if not values else values[max(values)]

    @property
    def taken(self) -> int | None:
        """The epoch from which on the ASR is at least one half; None where it is not in the end.

        A network that has learnt nothing yet may take everything for the target: that is no backdoor.
        """
        later = itertools.takewhile(lambda look: look[1] >= _TAKEN, reversed([*self.medians.get("asr", {}).items()]))
        return min((epoch for epoch, _ in later), default=None)


def context(view: View) -> Mapping[str, Any] | None:
    """A picture per row; nothing before the first model is trained."""
    lines = {number: own for number, row in enumerate(view.rows) if (own := _lines(row))}
    if not lines:
        return None
    top = max(max(losses) for own in lines.values() for _, losses in own)
    pictures = [
        (view.rows[number], _picture(view.rows[number], own, number=number, top=top), count(len(own), "seed"))
        for number, own in lines.items()
    ]
    without = [row for number, row in enumerate(view.rows) if number not in lines]
    return {
        "pictures": pictures,
        "missing": [row for row in without if row.result.settings.get("repair") is None],
        "repaired": [row for row in without if row.result.settings.get("repair") is not None],
        "seen": [
            (seen, _picture_of_seen(seen, number), count(seen.seeds, "seed"), _numbers(seen))
            for number, row in enumerate(view.rows)
            if (seen := _seen(row)) is not None
        ],
    }


def _lines(row: RowView) -> list[Line]:
    lines = []
    for cell in row.cells:
        entries = [entry for entry in cell.record.curve() if math.isfinite(entry["loss"])]
        if entries:
            lines.append(([entry["epoch"] for entry in entries], [entry["loss"] for entry in entries]))
    return lines


def _axes(last: float, *, left: int = 44, top: int = 10, **settings: Any) -> Axes:
    """Axes over the epochs up to the last."""
    axes = svg.axes_of(_WIDTH, _HEIGHT, left=left, right=10, top=top, bottom=42)
    axes.set(xlim=(0, last * 1.02), xlabel="epoch", **settings)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    return axes


def _picture(row: RowView, lines: Sequence[Line], *, number: int, top: float) -> svg.Drawing:
    with svg.drawing():
        axes = _axes(max(epochs[-1] for epochs, _ in lines), ylim=(0, top * 1.05 or 1), ylabel="loss")
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
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


# --- what was seen on the way ----------------------------------------------------------------------------------------


def _seen(row: RowView) -> Seen | None:
    """None where no look is recorded."""
    values: dict[str, dict[int, list[float]]] = {}
    seeds = 0
    for cell in row.cells:
        looks = [entry for entry in cell.record.curve() if math.isfinite(entry.get("accuracy", math.nan))]
        seeds += bool(looks)
        for entry in looks:
            for name, value in entry.items():
                values.setdefault(name, {}).setdefault(round(entry["epoch"]), []).append(value)
    if not seeds:
        return None
    medians = {
        name: {epoch: statistics.median(found) for epoch, found in sorted(by_epoch.items())}
        for name, by_epoch in values.items()
    }
    return Seen(row, seeds, medians)


def _picture_of_seen(seen: Seen, number: int) -> svg.Drawing:
    lines = {name: seen.medians[name] for name in _SEEN if name in seen.medians}
    with svg.drawing():
        axes = _axes(max(map(max, lines.values())), left=54, top=30, ylim=(-3, 103), yticks=[0, 50, 100], ylabel="%")
        for name, values in lines.items():
            dot = "." if len(values) == 1 else ""
            shares = [100 * value for value in values.values()]
            title, style = _SEEN[name]
            axes.plot(list(values), shares, color=seen.row.mark.colour, marker=dot, clip_on=False, label=title, **style)
        axes.legend(**_KEY)
        return svg.svg(axes, name=f"probe-{number}", label=_spoken_of_seen(seen, lines))


def _spoken_of_seen(seen: Seen, lines: Mapping[str, Mapping[int, float]]) -> str:
    parts = [
        f"{_SEEN[name][0]} from {percent(values[min(values)])} after epoch {min(values)} "
        f"to {percent(values[max(values)])} after epoch {max(values)}"
        for name, values in lines.items()
    ]
    return f"{seen.row.name} along training, median of {count(seen.seeds, 'seed')}: {'; '.join(parts)}.".replace(
        SPACE, " "
    )


def _numbers(seen: Seen) -> list[str]:
    """The cells of the table, as its heading in the template has them."""
    shares = [seen.last(name) for name in (*_SEEN, "poisoned_accuracy", "target_accuracy")]
    losses = [seen.last(name) for name in ("poisoned_loss", "target_loss")]
    taken = "asr" in seen.medians
    return [
        *(UNKNOWN if share is None else percent(share) for share in shares[:3]),
        UNKNOWN if not taken else "not" if seen.taken is None else str(seen.taken),
        *(
            UNKNOWN if share is None or loss is None else f"{percent(share)}, {loss:.2g}"
            for share, loss in zip(shares[3:], losses, strict=True)
        ),
    ]
