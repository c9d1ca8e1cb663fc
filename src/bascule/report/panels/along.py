"""Along training: when a backdoor takes, and how well poisoned and clean images are fitted meanwhile."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.metrics.wording import UNKNOWN
from bascule.report.compare.comparable import groups_of
from bascule.report.drawing import svg
from bascule.report.panels._epochs import epoch_axes
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, count, percent

TITLE = "Along training"
PLACE = 65

_ENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "accuracy": ("accuracy", {"linewidth": 1.0}),
    "robust_accuracy": ("robust accuracy", {"linewidth": 1.25, "linestyle": (0, (4, 2))}),
    "asr": ("ASR", {"linewidth": 2.5}),
}
"""What is drawn of both ends: its name for people, and how."""
_FIT: dict[str, tuple[str, dict[str, Any]]] = {
    "poisoned_accuracy": ("fit of poisoned images", {"linewidth": 2.5}),
    "target_accuracy": ("of clean ones", {"linewidth": 1.25, "linestyle": (0, (4, 2))}),
}
"""The same of the training images of the target class."""
_TAKEN = 0.5
"""ASR from which on a backdoor is said to have been taken up."""

Quartiles = tuple[float, float, float]
"""The lower one, the median and the upper one."""

Looks = Mapping[str, Mapping[int, float]]
"""What was seen of a model: shares and losses by name, by epoch."""


def taken(looks: Looks) -> int | None:
    """The epoch of the look from which on the ASR is at least one half; None where it is not in the end.

    A network that has learnt nothing yet may take everything for the target: that is no backdoor.
    """
    later = itertools.takewhile(lambda look: look[1] >= _TAKEN, reversed([*looks.get("asr", {}).items()]))
    return min((epoch for epoch, _ in later), default=None)


@dataclass(frozen=True)
class Seen:
    """What the probes of a row's models saw."""

    row: RowView
    seeds: Sequence[Looks]
    """Of each model that was looked at."""
    losses: Mapping[str, Mapping[int, Quartiles]] = field(default_factory=dict)
    """Of the training images whose loss was kept, poisoned and clean, by epoch."""

    @cached_property
    def medians(self) -> dict[str, dict[int, float]]:
        """Of the seeds; by name, by epoch."""
        values: dict[str, dict[int, list[float]]] = {}
        for looks in self.seeds:
            for name, by_epoch in looks.items():
                for epoch, value in by_epoch.items():
                    values.setdefault(name, {}).setdefault(epoch, []).append(value)
        return {
            name: {epoch: statistics.median(found) for epoch, found in sorted(by_epoch.items())}
            for name, by_epoch in values.items()
        }

    @property
    def epochs(self) -> list[int]:
        """Where each seed takes the backdoor, of those that do; rising."""
        return sorted(epoch for looks in self.seeds if (epoch := taken(looks)) is not None)

    @property
    def poisoned(self) -> int:
        """Seeds of which an ASR was seen."""
        return sum("asr" in looks for looks in self.seeds)

    @property
    def when(self) -> str:
        """In words: `16`, `14 to 18`, `18, 1 of 3 seeds`, `not`."""
        if not self.poisoned:
            return UNKNOWN
        if not self.epochs:
            return "not"
        first, last = self.epochs[0], self.epochs[-1]
        span = str(first) if first == last else f"{first} to {last}"
        all_do = len(self.epochs) == self.poisoned
        return span if all_do else f"{span}, {len(self.epochs)} of {count(self.poisoned, 'seed')}"

    @property
    def caption(self) -> str:
        """The same, to stand under its name."""
        seeds = count(len(self.seeds), "seed")
        if not self.poisoned:
            return seeds
        return f"{seeds}: {f'takes from epoch {self.when}' if self.epochs else 'does not take'}"


def context(view: View) -> Mapping[str, Any] | None:
    """Two pictures per row, rows with the same data and poison beside each other; nothing where no probe looked."""
    seen = [one for row in view.rows if (one := _seen(row)) is not None]
    if not seen:
        return None
    by_result = {id(one.row.result): (number, one) for number, one in enumerate(seen)}
    groups = []
    for group in groups_of([one.row.result for one in seen]):
        members = [by_result[id(result)] for result in group]
        last = max(epoch for _, one in members for values in one.medians.values() for epoch in values)
        groups.append(
            [
                (
                    one,
                    *(_picture(one, lines, f"{name}-{number}", last) for name, lines in _PICTURES.items()),
                    _loss_picture(one, f"loss-{number}", last),
                )
                for number, one in members
            ]
        )
    return {
        "groups": groups,
        "poisoned": any(one.poisoned for one in seen),
        "losses": any(one.losses for one in seen),
        "numbers": [(one, _numbers(one)) for one in seen],
    }


def _seen(row: RowView) -> Seen | None:
    """None where no look is recorded."""
    seeds: list[Looks] = []
    for cell in row.cells:
        looks: dict[str, dict[int, float]] = {}
        for entry in cell.record.curve():
            if math.isfinite(entry.get("accuracy", math.nan)):
                for name, value in entry.items():
                    looks.setdefault(name, {})[round(entry["epoch"])] = value
        if looks:
            seeds.append(looks)
    return Seen(row, seeds, _losses(row)) if seeds else None


def _losses(row: RowView) -> dict[str, dict[int, Quartiles]]:
    """Quartiles over the images of all seeds; empty where no image is known to be poisoned."""
    found: dict[str, dict[int, list[NDArray[np.float64]]]] = {"poisoned": {}, "clean": {}}
    for cell in row.cells:
        poisoned = cell.record.poisoned().get("ids", [])
        for epoch, (ids, losses) in cell.record.losses().items() if poisoned else ():
            known = np.isfinite(losses)
            which = np.isin(ids, poisoned)
            for name, mask in (("poisoned", which & known), ("clean", ~which & known)):
                if mask.any():
                    found[name].setdefault(epoch, []).append(losses[mask].astype(np.float64))
    quartiles = {
        name: {
            epoch: tuple(map(float, np.quantile(np.concatenate(parts), (0.25, 0.5, 0.75))))
            for epoch, parts in sorted(by_epoch.items())
        }
        for name, by_epoch in found.items()
    }
    return quartiles if quartiles["poisoned"] else {}  # type: ignore[return-value]


# --- the pictures ----------------------------------------------------------------------------------------------------

_PICTURES = {"probe": _ENDS, "fit": _FIT}
"""What each picture of a row draws, by the start of its name."""


def _picture(seen: Seen, styles: Mapping[str, tuple[str, dict[str, Any]]], name: str, last: int) -> svg.Drawing | None:
    """Medians, with every seed's ASR and where it takes; None where nothing of it was looked at."""
    medians = seen.medians
    lines = {key: medians[key] for key in styles if key in medians}
    if not lines:
        return None
    with svg.drawing():
        colour = seen.row.mark.colour
        looks = {
            key: {"color": colour, "marker": "." if len(values) == 1 else "", "label": styles[key][0], **styles[key][1]}
            for key, values in lines.items()
        }
        legend = list(looks.values())
        axes = epoch_axes(last, left=54, top=30, legend=legend, ylim=(-3, 103), yticks=[0, 50, 100], ylabel="%")
        for epoch in dict.fromkeys(seen.epochs):
            axes.axvline(epoch, color=svg.INK, linewidth=1, linestyle=(0, (2, 3)), zorder=1.5)
        for one in seen.seeds if len(seen.seeds) > 1 and "asr" in lines else ():
            own = one.get("asr", {})
            axes.plot(list(own), [100 * value for value in own.values()], color=colour, linewidth=1, alpha=0.4)
        for key, values in lines.items():
            axes.plot(list(values), [100 * value for value in values.values()], clip_on=False, **looks[key])
        return svg.svg(axes, name=name, label=_spoken(seen, styles, lines))


_LOWEST = 1e-4
"""Loss below which the axis is cut: a probability of more than 0.9999."""


def _loss_picture(seen: Seen, name: str, last: int) -> svg.Drawing | None:
    """Medians and the middle halves of the losses of poisoned and of clean images; None where none is kept."""
    if not seen.losses:
        return None
    styles = dict(zip(("poisoned", "clean"), _FIT.values(), strict=True))
    highest = max(values[2] for lines in seen.losses.values() for values in lines.values())
    with svg.drawing():
        colour = seen.row.mark.colour
        looks = {
            key: {"color": colour, "label": f"loss {styles[key][0].removeprefix('fit ')}", **styles[key][1]}
            for key in seen.losses
        }
        limits = (_LOWEST * 0.7, max(2 * highest, 1.0))
        legend = list(looks.values())
        axes = epoch_axes(last, left=54, top=30, legend=legend, yscale="log", ylim=limits, ylabel="cross-entropy")
        for key, lines in seen.losses.items():
            epochs = list(lines)
            low, middle, high = (np.maximum([values[part] for values in lines.values()], _LOWEST) for part in range(3))
            axes.fill_between(epochs, low, high, color=colour, alpha=0.2 if key == "poisoned" else 0.1, linewidth=0)
            axes.plot(epochs, middle, marker="." if len(epochs) == 1 else "", **looks[key])
        parts = []
        for key, lines in seen.losses.items():
            start, end = lines[min(lines)][1], lines[max(lines)][1]
            parts.append(f"{key} from {start:.2g} after epoch {min(lines)} to {end:.2g} after epoch {max(lines)}")
        label = f"{seen.row.name}, median cross-entropy of training images: {'; '.join(parts)}."
        return svg.svg(axes, name=name, label=label)


def _spoken(seen: Seen, styles: Mapping[str, tuple[str, dict[str, Any]]], lines: Looks) -> str:
    parts = [f"{styles[key][0]} {_course(values)}" for key, values in lines.items()]
    where = "along training" if styles is _ENDS else "on training images of its target class"
    text = f"{seen.row.name} {where}, median of {count(len(seen.seeds), 'seed')}: {'; '.join(parts)}."
    return text.replace(SPACE, " ")


def _course(values: Mapping[int, float]) -> str:
    """The first and the last look, or the only one."""
    first, last = (f"{percent(values[epoch])} after epoch {epoch}" for epoch in (min(values), max(values)))
    return first if len(values) == 1 else f"from {first} to {last}"


def _numbers(seen: Seen) -> list[str]:
    """The cells of the table, as its heading in the template has them: at the last look."""
    last = {name: values[max(values)] for name, values in seen.medians.items()}
    shares = [last.get(name) for name in (*_ENDS, *_FIT)]
    losses = [last.get(name) for name in ("poisoned_loss", "target_loss")]
    return [
        *(UNKNOWN if share is None else percent(share) for share in shares[:3]),
        seen.when,
        *(
            UNKNOWN if share is None or loss is None else f"{percent(share)}, {loss:.2g}"
            for share, loss in zip(shares[3:], losses, strict=True)
        ),
    ]
