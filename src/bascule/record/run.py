"""The record of a run: its plan, and a folder for each cell."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bascule.core.errors import RequestError
from bascule.record.cell import FORMAT, CellRecord, read_json, write_json


class RunRecord:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan_file = path / "study.json"

    def cell(self, fingerprint: str) -> CellRecord:
        """The record of one cell, existing or not."""
        return CellRecord(self.path / "cells" / fingerprint)

    def write_plan(self, content: Mapping[str, Any]) -> None:
        """Replace `study.json`."""
        write_json(self.plan_file, {"format": FORMAT, **content})

    def plan(self) -> dict[str, Any]:
        """`study.json`.

        Raises:
            RequestError: Missing, damaged, or written by a newer version.
        """
        content = dict(read_json(self.plan_file))
        if content.get("format") != FORMAT:
            raise RequestError(f"{self.plan_file} has format {content.get('format')!r}; this version reads {FORMAT}")
        for row in content["rows"]:
            for cell in row["cells"]:
                # Runs recorded before twins had evaluations of their own.
                unattacked = {kind: keys for kind, keys in cell["columns"].items() if kind != "attack"}
                cell.setdefault("twin_columns", unattacked if cell["twin"] else {})
                cell.setdefault("balls", {})
                cell.setdefault("values", {})
        return content


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
    if len(scaled) == 1 and RunRecord(scaled[0]).plan()["study"] == run:
        return RunRecord(scaled[0])
    known = sorted(path.parent.relative_to(runs_dir).as_posix() for path in runs_dir.glob("**/study.json"))
    there = f"Runs in {runs_dir}: {', '.join(known)}." if known else f"There are no runs in {runs_dir}."
    raise RequestError(f"no run {run!r}: give a run folder, or the name of a study that was run. {there}")
