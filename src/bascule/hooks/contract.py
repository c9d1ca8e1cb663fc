"""Hooks. What a package does along a run: it is told what happens, in plain data, and nothing that it does counts.

A hook is a class of another package, announced as an entry point in the group `bascule.hooks` and made without
arguments for each run, or an instance given to `run_plan`. It is called in the process that holds the run, wherever the
cells are done, and gets data of its own: changing them changes nothing. What it draws from the global generators is put
back. One that raises is switched off for the rest of the run, with one warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CellFacts:
    """One model of the study, before anything is known of it. As all of these, plain: `dataclasses.asdict` is JSON."""

    study: str
    label: str
    """For people: row, what varies, seed."""
    row: str
    """The row it belongs to, with what varies; the first where several share the model."""
    rows: tuple[str, ...]
    """All of them."""
    seed: int
    twin: bool
    """Whether it is a twin: the same recipe and seed as the row's own model, without poison."""
    fingerprint: str
    """Its name, and that of its folder under `cells`."""
    settings: Mapping[str, Any]
    """What makes the model, with defaults, as `cell.json` holds them."""
    trained: bool
    """Whether the model is there already and will only be asked more; then there are no epochs."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run as it begins."""

    study: str
    title: str
    folder: str
    """The run folder, an absolute path."""
    command: str
    """What somebody typed."""
    metrics: tuple[str, ...]
    """Names of the metrics in its table."""
    cells: tuple[CellFacts, ...]
    """What will be worked on, in the order of the plan."""
    done: tuple[str, ...]
    """Fingerprints of the cells that were done before: nothing more is said of them but in the table."""


@dataclass(frozen=True, kw_only=True)
class CellEnd:
    """How the work on a cell ended."""

    seconds: float
    failure: str | None
    """Why it could not be done; None where it is done."""
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What this one model's answers say, by the name of the metric: value, low and high (of a 95 % interval), n, unit,
    better; None for a value that cannot be had, as one that needs a twin that is not done. Nothing after a failure, or
    where the record cannot be read just then."""


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended."""

    cells: int
    """Cells that were worked on."""
    failures: Mapping[str, str]
    """Labels of the cells that failed, with the reason."""
    stopped: str | None
    """Why it stopped before its end (`interrupted`, or a wrong request); None where it came to it."""


class Hook:
    """Does nothing. A hook overrides what it wants to hear of.

    The order is `run_begun`; for each cell `cell_begun`, `epoch` after each epoch, `cell_ended`; `table`; `run_ended`.
    Cells may be told of in turns where several are worked on at a time.
    """

    def run_begun(self, run: RunFacts) -> None:
        """A run begins, or continues: also where all of its cells are done already."""

    def cell_begun(self, cell: CellFacts) -> None:
        """Work on a cell begins, or continues where it was interrupted. On Ray, told when it has ended."""

    def epoch(self, cell: CellFacts, epoch: int, values: Mapping[str, float]) -> None:
        """An epoch of a training has ended.

        Each is told once, in order: those before an interruption again at once when the training continues, and on Ray
        all of them when the cell has ended.

        Args:
            cell: Whose.
            epoch: From 1.
            values: The point of its curve: `epoch`, `step`, `loss`, `lr`, `seconds`, and what `probe` saw.
        """

    def cell_ended(self, cell: CellFacts, end: CellEnd) -> None:
        """The work on a cell has ended, well or not."""

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The table of the run when its cells have ended, each row as `bascule table --format json` has it."""

    def run_ended(self, end: RunEnd) -> None:
        """The run has ended, well or not; the last call."""
