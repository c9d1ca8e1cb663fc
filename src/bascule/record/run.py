"""The record of a run: its plan, and a folder for each cell."""

from __future__ import annotations

import glob
from pathlib import Path

from bascule.core.errors import RequestError
from bascule.record.cell import FORMAT, CellRecord, read_json, write_json
from bascule.record.plan import RecordedPlan, plan_from
from bascule.record.reading import Readings


class RunRecord:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan_file = path / "study.json"
        self._readings = Readings()

    def cell(self, fingerprint: str) -> CellRecord:
        """The record of one cell, existing or not."""
        return CellRecord(self.path / "cells" / fingerprint, self._readings)

    def write_plan(self, plan: RecordedPlan) -> None:
        """Replace `study.json`."""
        write_json(self.plan_file, {"format": FORMAT, **plan.as_dict()})

    def plan(self) -> RecordedPlan:
        """`study.json`.

        Raises:
            RequestError: Missing, damaged, or written by a newer version.
        """
        plan = self._readings.read(self.plan_file, _read_plan)
        return _read_plan(self.plan_file) if plan is None else plan


def _read_plan(path: Path) -> RecordedPlan:
    content = dict(read_json(path))
    if content.get("format") != FORMAT:
        raise RequestError(f"{path} has format {content.get('format')!r}; this version reads {FORMAT}")
    try:
        return plan_from(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RequestError(f"cannot read {path}: it holds no plan: {type(error).__name__}: {error}") from error


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
    there = f"Runs in {runs_dir}: {', '.join(known)}." if known else f"There are no runs in {runs_dir}."
    raise RequestError(f"no run {run!r}: give a run folder, or the name of a study that was run. {there}")
