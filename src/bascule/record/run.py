"""The record of a run: its plan, and a folder for each cell."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from bascule.core.errors import RequestError
from bascule.core.files import readable
from bascule.record.cell import CellRecord, write_json
from bascule.record.plan import RecordedPlan, plan_from
from bascule.record.reading import FORMAT, Readings, parse_formatted
from bascule.record.sums import DamagedError, sum_file


class RunRecord:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan_file = path / "study.json"
        self.asked_file = path / "evaluation.json"
        self._readings = Readings()
        self._cells: dict[str, CellRecord] = {}

    def cell(self, fingerprint: str) -> CellRecord:
        """The record of one cell, existing or not."""
        if fingerprint not in self._cells:
            self._cells[fingerprint] = CellRecord(self.path / "cells" / fingerprint, self._readings)
        return self._cells[fingerprint]

    def write_plan(self, plan: RecordedPlan) -> None:
        """Replace `study.json`; nothing is asked beside it any more."""
        write_json(self.plan_file, {"format": FORMAT, **plan.as_dict()})
        for path in (self.asked_file, sum_file(self.asked_file)):
            path.unlink(missing_ok=True)

    def plan(self) -> RecordedPlan:
        """`study.json`.

        Raises:
            RequestError: Missing, damaged, or written by a newer version.
        """
        try:
            plan = self._readings.read(self.plan_file, _parse_plan(self.plan_file))
        except DamagedError as error:
            raise DamagedError(error.path, f"{error.why}. The study's own `bascule run STUDY` makes it again") from None
        if plan is None:
            raise RequestError(f"cannot read {self.plan_file}: there is no such file")
        return plan

    def write_asked(self, plan: RecordedPlan) -> None:
        """Keep a plan that asks more than `study.json`, which it takes the place of once everything is answered."""
        write_json(self.asked_file, {"format": FORMAT, **plan.as_dict()})

    def asked(self) -> RecordedPlan | None:
        """The plan of an evaluation that is not finished; None where there is none.

        Raises:
            RequestError: Damaged, or written by a newer version.
        """
        return self._readings.read(self.asked_file, _parse_plan(self.asked_file))


def _parse_plan(path: Path) -> Callable[[bytes], RecordedPlan]:
    def parse(content: bytes) -> RecordedPlan:
        values = parse_formatted(path)(content)
        try:
            return plan_from(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(path, f"it holds no plan: {type(error).__name__}: {error}") from error

    return parse


def open_run(run: str, runs_dir: Path) -> RunRecord:
    """The record of RUN: a run folder, or the name of its study under `runs_dir`.

    A study with scales has one run folder for each; its plain name will do where there is only one.

    Raises:
        RequestError: Neither exists; names the runs that do.
    """
    for path in (Path(run), runs_dir / run):
        if (path / "study.json").is_file():
            return RunRecord(path)
    pattern = f"{glob.escape(run)}-*/study.json"
    scaled = [] if Path(run).is_absolute() else [path.parent for path in sorted(runs_dir.glob(pattern))]
    if len(scaled) == 1 and (only := RunRecord(scaled[0])).plan().study == run:
        return only
    known = sorted(path.parent.relative_to(runs_dir).as_posix() for path in runs_dir.glob("**/study.json"))
    where = readable(runs_dir)
    there = f"Runs in {where}: {', '.join(known)}." if known else f"There are no runs in {where}."
    raise RequestError(f"no run {run!r}: give a run folder, or the name of a study that was run. {there}")
