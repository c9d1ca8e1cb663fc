"""What evaluations found that is not one value per test image, gathered over the models of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import build
from bascule.metrics.contract import Measure, Metric, Outcomes
from bascule.metrics.interval import summarise
from bascule.record.answers import Finding
from bascule.report.compare.same_models import merge
from bascule.report.view import CellView, RowView, View
from bascule.report.words import component

_ABOUT = ("target", "aims", "value")
"""What an evaluation keeps beside the settings of its component."""


@dataclass(frozen=True)
class Evidence:
    """What one evaluation found for the models of a row, by seed."""

    row: RowView
    models: Mapping[int, Finding]
    twins: Mapping[int, Finding]
    settings: Mapping[str, Any]
    """Of the component that was asked."""

    @property
    def name(self) -> str:
        """The component's name."""
        return str(self.settings.get("name", "unnamed"))

    @property
    def method(self) -> str:
        """The component with its settings, in words."""
        return component({"name": self.name} | dict(self.settings))

    @property
    def target(self) -> int | None:
        """Label that the row's poison aims at; None where there is no single one."""
        poison = self.row.poison
        return None if poison is None or poison["target"] is None else int(poison["target"])

    @property
    def cells(self) -> Iterator[CellView]:
        """The row's models that it found something for."""
        return (cell for cell in self.row.cells if cell.seed in self.models)

    def having(self, name: str) -> Evidence | None:
        """The part that holds the array `name`; None where no model has it."""
        models, twins = (
            {seed: finding for seed, finding in part.items() if name in finding.arrays}
            for part in (self.models, self.twins)
        )
        return replace(self, models=models, twins=twins) if models else None


def evidence(view: View, kind: str) -> list[Evidence]:
    """Everything recorded under the evaluations of a kind, row by row in the order of the plan.

    Rows that ask the same of the same models come once, and where it is the evaluation that varies (`inspect`) their
    names leave that out: it stands beside them.
    """
    keys = dict.fromkeys(key for row in view.rows for key in _keys(row, kind))
    rows = [(_without(row, kind), key) for key in keys for row in merge(view.rows, _asking(kind, key))]
    return in_order(view, [part for row, key in rows if (part := at(row, key)) is not None])


def _without(row: RowView, path: str) -> RowView:
    vary = {name: value for name, value in row.result.vary.items() if name != path}
    return replace(row, result=replace(row.result, vary=vary))


def in_order(view: View, parts: Sequence[Evidence]) -> list[Evidence]:
    """Row by row in the order of the plan."""
    places = {id(row.cells): place for place, row in enumerate(view.rows)}
    return sorted(parts, key=lambda part: places[id(part.row.cells)])


def _asking(kind: str, key: str) -> Callable[[RowView], bool | None]:
    """Whether a row asks for an evaluation; None where it does not."""
    return lambda row: key in _keys(row, kind) or None


def at(row: RowView, key: str, settings: Mapping[str, Any] | None = None) -> Evidence | None:
    """What the row's models have under a key; None when there is nothing.

    Args:
        row: The row.
        key: Of the finding.
        settings: Of the component, where they are not kept beside the finding.
    """
    models, twins = (
        {cell.seed: finding for cell in cells if (finding := cell.record.finding(key)) is not None}
        for cells in (row.cells, row.twins)
    )
    if not models:
        return None
    if settings is None:
        kept = next(iter(models.values())).info.get("settings") or {}
        settings = {name: value for name, value in kept.items() if name not in _ABOUT}
    return Evidence(row, models, twins, settings)


def _keys(row: RowView, kind: str) -> list[str]:
    return list(dict.fromkeys(key for cell in row.cells for key in cell.keys(kind)))


# --- numbers ---------------------------------------------------------------------------------------------------------


def measure_of(metric: str, **per_seed: Sequence[Any]) -> Measure:
    """A metric of the catalogue over the seeds of a row; unknown where it is not finite.

    Args:
        metric: Its name.
        per_seed: Fields of `Outcomes`, one value per seed.
    """
    nothing: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    values = [dict(zip(per_seed, one, strict=True)) for one in zip(*per_seed.values(), strict=True)]
    measure = summarise(_metric(metric), [Outcomes(label=nothing, **fields) for fields in values])
    if not all(isfinite(part or 0) for part in (measure.value, measure.low, measure.high)):
        return replace(measure, value=None, low=None, high=None)
    return measure


@cache
def _metric(name: str) -> Metric:
    metric = build("measure", name)  # looks for plugins every time
    assert isinstance(metric, Metric)
    return metric
