"""What scanners say of the models: how far each class stands out, and the triggers they recover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL.Image import Image

from bascule.core import tiles
from bascule.core.grid import TableCell
from bascule.metrics.wording import table_cell
from bascule.record.answers import Finding
from bascule.record.outcomes import verdict_of
from bascule.record.plan import came_as_it_is
from bascule.report.drawing import svg
from bascule.report.drawing.picture import Picture
from bascule.report.drawing.trigger import Pairs, likeness, on_grey, read_pairs
from bascule.report.evidence import Evidence, evidence, measure_of
from bascule.report.view import CellView, RowView, View
from bascule.report.words import count, joined, percent

TITLE = "Recovered triggers"
PLACE = 80

_WIDTH, _HEIGHT = 400, 210
_CASES = 24
"""Rows with pictures; more are in the table alone."""
_CLASSES = 3
"""Classes whose recovered trigger is shown, besides the target."""
_TILES = 440
_GIVEN = "the target was given, not searched for"
_NAMED = ("wrong class", "suspicion", "false alarm")
"""Verdicts whose class is told. Of a model that came as it is nobody may know whether it has a backdoor: naming a class
is a suspicion then, not a false alarm."""


@dataclass(frozen=True)
class Tile:
    """A recovered or true trigger, with what it is."""

    picture: Picture
    title: str
    note: str


@dataclass(frozen=True)
class Case:
    """The pictures of a row's first scanned model."""

    row: RowView
    seed: int
    chart: svg.Drawing | None
    tiles: list[Tile]


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    row: RowView
    method: str
    verdict: str
    numbers: tuple[TableCell, ...]
    """Highest anomaly of the models and of the twins, overlap."""


def context(view: View) -> Mapping[str, Any] | None:
    """The verdict on every row, with pictures of the first ones; nothing where no model is scanned."""
    parts = [part for one in evidence(view, "scan") if (part := one.having("anomaly")) is not None]
    if not parts:
        return None
    return {
        "lines": [_line(part) for part in parts],
        "cases": [_case(place, part) for place, part in enumerate(parts[:_CASES])],
        "methods": list(dict.fromkeys(part.method for part in parts)),
        "rest": [part.row for part in parts[_CASES:]],
    }


# --- verdicts --------------------------------------------------------------------------------------------------------


def _suspects(finding: Finding) -> tuple[int, ...]:
    return verdict_of(finding).suspects


def _assumed(finding: Finding) -> bool:
    """Whether the target was given to the scanner and nothing was tested."""
    return bool(_suspects(finding)) and not np.isfinite(finding.arrays["anomaly"]).any()


def _line(part: Evidence) -> Line:
    target = part.target
    own, twin = (list(map(verdict_of, findings.values())) for findings in (part.models, part.twins))
    targets, of_twins = [target] * len(own), [target] * len(twin)
    numbers = (
        table_cell(measure_of("scan-anomaly", verdict=own, target=targets)),
        table_cell(measure_of("scan-anomaly", verdict=twin, target=of_twins)),
        table_cell(measure_of("scan-overlap", verdict=own, target=targets)),
    )
    return Line(part.row, part.name, _sentence(part), numbers)


def _sentence(part: Evidence) -> str:
    """`Found in 2 of 3 seeds; nothing found in 1. False alarm on the twin in 1 of 3.`"""
    kinds = Counter(_kind(part, finding) for finding in part.models.values())
    total = len(part.models)
    order = ("right class", "wrong class", "suspicion", "false alarm", "nothing found", _GIVEN)
    known = {kind: kinds[kind] for kind in order if kinds[kind]}
    if len(known) == 1:
        said = f"{next(iter(known))} in {_of(total, total)}"
    else:
        said = "; ".join(f"{kind} in {_of(many, total)}" for kind, many in known.items())
    sentence = said[:1].upper() + said[1:] + "."
    wrong = sorted({_suspects(f)[0] for f in part.models.values() if _kind(part, f) in _NAMED})
    if wrong:
        sentence += f" Named first: {joined([part.row.class_name(label) for label in wrong])}."
    tested = [finding for finding in part.twins.values() if not _assumed(finding)]
    if tested:
        alarms = sum(bool(_suspects(finding)) for finding in tested)
        sentence += f" {'False alarm' if alarms else 'No false alarm'} on the twin"
        sentence += f" in {_of(alarms, len(tested))}." if alarms else f" ({count(len(tested), 'seed')})."
    return sentence


def _of(many: int, total: int) -> str:
    if total == 1:
        return "the only seed"
    return f"all {total} seeds" if many == total else f"{many} of {total} seeds"


def _kind(part: Evidence, finding: Finding) -> str:
    suspects = _suspects(finding)
    if _assumed(finding):
        return _GIVEN
    if not suspects:
        return "nothing found"
    if part.row.poison is None:
        return "suspicion" if came_as_it_is(part.row.result.settings) else "false alarm"
    if part.target is None:
        return "right class"  # every class is a target
    return "right class" if suspects[0] == part.target else "wrong class"


# --- pictures --------------------------------------------------------------------------------------------------------


def _case(place: int, part: Evidence) -> Case:
    seed, finding = next(iter(part.models.items()))
    return Case(part.row, seed, _chart(place, part, finding, part.twins.get(seed)), _tiles_of(place, part, finding))


def _chart(place: int, part: Evidence, finding: Finding, twin: Finding | None) -> svg.Drawing | None:
    """The anomaly of each class, filled for the model and hollow for its twin."""
    anomaly = np.asarray(finding.arrays["anomaly"], dtype=np.float64)
    if not np.isfinite(anomaly).any():
        return None
    threshold = float(finding.info.get("threshold", np.nan))
    colour = part.row.mark.colour
    with svg.drawing():
        axes = svg.axes_of(_WIDTH, _HEIGHT, left=44, right=10, top=10, bottom=44)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="class", ylabel="anomaly", xlim=(-0.7, len(anomaly) - 0.3))
        steps = [1, 2, 5, 10]
        axes.xaxis.set_major_locator(MaxNLocator(min(len(anomaly), 12), integer=True, steps=steps))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=steps))
        classes = np.arange(len(anomaly))
        axes.bar(classes - 0.2, _bars(anomaly), width=0.36, color=colour)
        if twin is not None and len(twin.arrays["anomaly"]) == len(anomaly):
            heights = _bars(np.asarray(twin.arrays["anomaly"], dtype=np.float64))
            axes.bar(classes + 0.2, heights, width=0.32, facecolor="none", edgecolor=colour, linewidth=1)
        axes.axhline(0, color=svg.INK, linewidth=0.75)
        if isfinite(threshold):
            axes.axhline(threshold, color=svg.INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.margins(y=0.08)
        return svg.svg(axes, name=f"anomaly-{place}", label=_spoken(part, anomaly, threshold, twin))


def _bars(anomaly: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights that can be drawn: nothing for a class that was not examined."""
    finite = anomaly[np.isfinite(anomaly)]
    top = float(np.abs(finite).max()) if len(finite) else 0.0
    return np.nan_to_num(anomaly, nan=0.0, posinf=top, neginf=-top)


def _spoken(part: Evidence, anomaly: NDArray[np.float64], threshold: float, twin: Finding | None) -> str:
    most = int(np.nanargmax(np.where(np.isfinite(anomaly), anomaly, -np.inf)))
    text = (
        f"Anomaly of each class under {part.row.name}: most in class {part.row.class_name(most)}, {anomaly[most]:.2g}"
    )
    if part.target is not None and part.target != most and part.target < len(anomaly):
        text += f"; the target, class {part.row.class_name(part.target)}, {anomaly[part.target]:.2g}"
    if twin is not None and np.isfinite(twin.arrays["anomaly"]).any():
        text += f"; most in the twin {np.nanmax(twin.arrays['anomaly']):.2g}"
    return text + (f"; suspicious above {threshold:.2g}." if isfinite(threshold) else ".")


def _tiles_of(place: int, part: Evidence, finding: Finding) -> list[Tile]:
    """The recovered triggers of the most suspicious classes and of the target, and the true one."""
    parts = finding.arrays
    if "pattern" not in parts or "mask" not in parts or parts["pattern"].ndim != 4:
        return []
    pictures = []
    for label in _chosen(part, finding):
        image = tiles.over_grey(parts["pattern"][label], parts["mask"][label])
        name = part.row.class_name(label)
        words = f"Trigger recovered for class {name} under {part.row.name}, on grey"
        picture = Picture(image, f"recovered-{place}-{label}", words, most=_side(image))
        title = f"class {name}" + (", the target" if label == part.target else "")
        pictures.append(Tile(picture, title, _numbers(parts, label)))
    cells = [cell for cell in part.cells if cell.seed in part.models]
    true = _true(cells[0]) if cells else None
    if true is not None and part.target is not None:
        words = f"The true trigger of {part.row.name}: what it makes of a grey image"
        image = tiles.tile(on_grey(true))
        picture = Picture(image, f"true-{place}", words, most=_side(image))
        pictures.append(Tile(picture, "the true trigger", _likeness(true, part.target, finding)))
    return pictures


def _side(image: Image) -> int:
    """Tiles stand beside each other: about as wide as a thumb."""
    return max(image.width, 112)


def _chosen(part: Evidence, finding: Finding) -> list[int]:
    """Classes to show, most suspicious first."""
    anomaly = np.asarray(finding.arrays["anomaly"], dtype=np.float64)
    examined = np.isfinite(anomaly)
    if _assumed(finding):
        return [label for label in _suspects(finding) if label < len(anomaly)]
    order = [int(label) for label in np.argsort(-np.where(examined, anomaly, -np.inf), kind="stable")]
    chosen = [label for label in order if examined[label]][:_CLASSES]
    if part.target is not None and part.target < len(anomaly) and part.target not in chosen and examined[part.target]:
        chosen.append(part.target)
    return chosen


def _numbers(parts: Mapping[str, NDArray[Any]], label: int) -> str:
    words = []
    anomaly = float(parts["anomaly"][label])
    if isfinite(anomaly):
        words.append(f"anomaly {anomaly:.1f}")
    if "success" in parts and isfinite(float(parts["success"][label])):
        words.append(f"moves {percent(float(parts['success'][label]))} of images")
    return ", ".join(words)


def _likeness(true: Pairs, target: int, finding: Finding) -> str:
    """How much the trigger recovered for the target is like the true one; nothing where none was recovered for it."""
    overlap, parts = finding.info.get("overlap"), finding.arrays
    if overlap is None:
        return ""
    words = f"overlap with the target's {percent(float(overlap))}"
    if parts["pattern"].shape[1:] != true.clean.shape[1:]:
        return words
    cosine = likeness(true, parts["pattern"][target], parts["mask"][target])
    return words if cosine is None else f"{words}, cosine {cosine:.2f}"


def _true(cell: CellView) -> Pairs | None:
    """Test images without and with the true trigger, from the picture kept with the poison."""
    # A repaired model has no poison of its own but that of the model it was made from.
    base = cell.record.base()
    data = cell.record.picture() or (base and base.picture())
    size = (cell.info.get("data") or {}).get("size")
    return read_pairs(data, tuple(size)) if data and size else None
