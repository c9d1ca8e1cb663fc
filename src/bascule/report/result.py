"""A run as somebody reads it in Python: its table by name, its frames, its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bascule.core.documented import documented
from bascule.core.errors import UnknownNameError, unknown
from bascule.core.shown import Lines, Part, Shown
from bascule.metrics.contract import Measure
from bascule.record.rows import RowResult
from bascule.record.run import RunRecord
from bascule.report.check.checked import Checked, check_rows, parse_conditions
from bascule.report.frames import Frames, frames_of
from bascule.report.panels.verdict import clear_sentences
from bascule.report.tables.tables import Format, More, joint_table, render
from bascule.report.view import View, view_of

if TYPE_CHECKING:
    import pandas


@documented
@dataclass(frozen=True, eq=False, repr=False)
class Row(Shown, Mapping[str, Measure]):
    """A row of a run's table: its measures by name, as in `bascule table --format json`, each with its interval."""

    result: RowResult
    """Everything that the record says of it."""

    @property
    def name(self) -> str:
        """Its name, with what varies."""
        return self.result.label

    @property
    def seeds(self) -> int:
        """Seeds that are in the numbers."""
        return self.result.seeds

    @property
    def vary(self) -> Mapping[str, Any]:
        """What varies, by its path in the study, and the value that it has here."""
        return self.result.vary

    @property
    def flags(self) -> tuple[str, ...]:
        """Reasons not to trust the numbers: see docs/flags.md."""
        return self.result.flags

    @property
    def curve(self) -> tuple[tuple[float, Measure], ...]:
        """Robust accuracy by radius, where the study asked for a security curve."""
        return self.result.curve

    def __getitem__(self, metric: str) -> Measure:
        name = metric.replace("-", "_") if isinstance(metric, str) else metric
        if name not in self.result.metrics:
            raise UnknownNameError(unknown("metric of this run", str(metric), self.result.metrics))
        return self.result.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.result.metrics)

    def __len__(self) -> int:
        return len(self.result.metrics)

    def shown(self) -> Sequence[Part]:
        return _parts([self.result])


class Run(Shown, Mapping[str, Row], PathLike[str]):
    """A run, finished or not, as it was when it was read: `run["Adv. training"]["asr"].value`.

    Its rows by name, with what varies where something does. A path: what takes one (`bascule.load`, `Path`) takes it.
    """

    def __init__(self, record: RunRecord, *, failed: Mapping[str, str] | None = None) -> None:
        """Read the record.

        Args:
            record: Of the run.
            failed: Models that could not be made or asked, with the reason; by default those that the record names.

        Raises:
            RequestError: The plan is missing or damaged.
        """
        self._record = record
        self._view: View = view_of([record])
        self._failed = failed

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._record.path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def title(self) -> str:
        """Of its study."""
        return self._view.runs[0].plan.title

    @property
    def done(self) -> bool:
        """Whether all models are there and everything that was asked of them is answered."""
        return all(model.done for model in self._view.runs[0].models)

    @cached_property
    def failed(self) -> Mapping[str, str]:
        """Models that could not be made or asked, by row and seed, and why. The next `bascule.run` tries them again."""
        if self._failed is not None:
            return self._failed
        return {
            f"{row.result.label} · seed {model.seed}{' · twin' if model.twin else ''}": model.failure
            for row, model in self._view.runs[0].cells()
            if model.failure is not None
        }

    # --- by name -----------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Row:
        rows = [row for row in self._results if name in (row.label, *row.called)]
        if len(rows) == 1:
            return Row(rows[0])
        labels = [row.label for row in self._results]
        if not rows and (named := [row.label for row in self._results if row.row == name]):
            raise UnknownNameError(f"{name!r} is {' or '.join(map(repr, named))}: give the whole name")
        if not rows:
            raise UnknownNameError(unknown("row", str(name), labels))
        raise UnknownNameError(f"{name!r} may be {' or '.join(repr(row.label) for row in rows)}: give the whole name")

    def __iter__(self) -> Iterator[str]:
        return (row.label for row in self._results)

    def __len__(self) -> int:
        return len(self._results)

    @property
    def _results(self) -> list[RowResult]:
        return [row.result for row in self._view.rows]

    # --- as frames ---------------------------------------------------------------------------------------------------

    def frames(self) -> Frames:
        """Rows, models and per-image outcomes as pandas frames.

        Raises:
            RequestError: pandas is missing.
        """
        return self._frames

    @cached_property
    def _frames(self) -> Frames:
        return frames_of(self._view)

    @property
    def rows(self) -> pandas.DataFrame:
        """The table as a frame: see `Frames`."""
        return self._frames.rows

    @property
    def cells(self) -> pandas.DataFrame:
        """A line per model: see `Frames`."""
        return self._frames.cells

    @property
    def outcomes(self) -> pandas.DataFrame:
        """A line per model and test image: see `Frames`."""
        return self._frames.outcomes

    # --- as it is printed and written --------------------------------------------------------------------------------

    def shown(self) -> Sequence[Part]:
        table, below = joint_table(self._results)
        failed = [f"failed: {label}: {why}" for label, why in self.failed.items()]
        return [table, Lines([*clear_sentences(self._view), *below]), *([Lines(failed)] if failed else [])]

    def table(self, form: Format = "text", **more: Any) -> str:
        """The joint table in another format, or with more beside it: what `bascule table` prints.

        Args:
            form: text, json, csv, markdown or latex.
            more: `against` (a row's name), `before`, `pareto`, `by_class`, as the options of `bascule table`.

        Raises:
            RequestError: There is no such format or row, or what is asked for cannot be shown in it.
        """
        return render(self._results, form, More(**more))

    def report(self, path: str | PathLike[str] | None = None) -> Path:
        """Write the page with the table, the figures and the evidence; by default `report.html` in the run's folder.

        Returns:
            The file.
        """
        from bascule.report.page.page import write_page

        return write_page([self._record], self.path / "report.html" if path is None else Path(path))

    def check(self, *conditions: str, row: str | Sequence[str] = ()) -> Checked:
        """Whether conditions hold on all rows, or on those named: see `bascule.check`.

        Raises:
            RequestError: There is no such row or metric, or a condition cannot be read.
        """
        return check_rows(self._results, parse_conditions(conditions), of=self.path.name, row=row)


def _parts(rows: Sequence[RowResult]) -> list[Part]:
    table, below = joint_table(rows)
    return [table, Lines(below)]
