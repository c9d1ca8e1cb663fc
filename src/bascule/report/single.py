"""One model at both ends, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bascule.core.catalog import build
from bascule.core.text import count
from bascule.metrics.contract import Measure, Metric, Outcomes
from bascule.metrics.interval import summarise
from bascule.metrics.paired import difference
from bascule.record.evaluation import AttackShare, Evaluation
from bascule.report.tables import grid
from bascule.report.tables.grid import Grid, TableCell
from bascule.report.tables.tables import ARROWS, UNKNOWN, change_cell, table_cell


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
        lines.append(_end(metric, measures, hints.get(name, UNKNOWN), change))
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
    lines = [
        _end(evaluation.kinds[name], [measure], hints.get(name, UNKNOWN))
        for name, measure in evaluation.metrics.items()
    ]
    below = [f"On {len(evaluation.outcomes.label):,} {about}. 95 % intervals over these images (Wilson)."]
    below += [
        f"{part.name} ({_threat(part)}{_searched(part.precision)}): "
        f"fooled {100 * part.fooled:.1f} % of the images; {100 * part.left:.1f} % are left"
        for part in evaluation.attacks
    ]
    return grid.render([Grid([""], ["Value"], lines)], [[*below, *(f"! {flag}" for flag in evaluation.flags)]], "text")


def _threat(part: AttackShare) -> str:
    return f"{part.norm}, eps {part.eps:.4g}" if part.eps is not None else part.within or ""


def _searched(precision: str) -> str:
    return "" if precision == "float32" else f", {precision} precision"


def _end(metric: Metric, measures: Sequence[Measure], hint: str, *more: TableCell) -> list[TableCell]:
    """A metric of one model in one state or several, and what is made of them."""
    unit = "%" if metric.unit == "fraction" else metric.unit
    heading = TableCell(f"{metric.title} {unit} {ARROWS[metric.better]}")
    if measures[0].value is None:
        return [heading, TableCell(hint), *(TableCell("") for _ in (*measures[1:], *more))]
    return [heading, *map(table_cell, measures), *more]
