"""One model at both ends, as text."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.core import grid
from bascule.core.catalog import build
from bascule.core.grid import Grid
from bascule.core.text import count
from bascule.metrics.contract import Metric, Outcomes
from bascule.metrics.interval import summarise
from bascule.metrics.paired import difference
from bascule.metrics.wording import UNKNOWN, metric_line
from bascule.record.evaluation import Evaluation
from bascule.report.tables.tables import change_cell


def both_ends(before: Outcomes, after: Outcomes, hints: Mapping[str, str]) -> str:
    """One model at both ends before and after it was changed, as text.

    Args:
        before: Of one seed.
        after: On the same images.
        hints: What to say of a metric (`robust-accuracy`, `asr`) that was not measured.
    """
    lines = []
    for name in ("accuracy", "robust-accuracy", "asr"):
        metric: Metric = build("measure", name)
        measures = [summarise(metric, [outcomes]) for outcomes in (before, after)]
        change = change_cell(difference(metric, {0: before}, {0: after}))
        lines.append(metric_line(metric, measures, hints.get(name, UNKNOWN), change))
    images = f"On {count(len(before.label), 'image')} that the repair did not see."
    below = [f"{images} 95 % intervals (Wilson); of the change paired by image."]
    return grid.render([Grid([""], ["Before", "After", "Change, points"], lines)], [below], "text")


def one_model(evaluation: Evaluation, about: str, hints: Mapping[str, str]) -> str:
    """One model at both ends, as text.

    Args:
        evaluation: Its numbers.
        about: What the images are called, in a phrase.
        hints: What to say of a metric (`robust_accuracy`) that was not measured.
    """
    table, below = evaluation.table(about, hints)
    return grid.render([table], [below], "text")
