"""A run as data frames."""

from __future__ import annotations

from pathlib import Path

from bascule.report import frames
from bascule.report.frames import Frames


def load(run: str | Path, *, runs: str | Path = "runs") -> Frames:
    """The rows, models and per-image outcomes of a run as pandas frames; see `bascule.report.frames`.

    Args:
        run: A run folder, or the name of a study that was run.
        runs: Folder that holds the runs.

    Raises:
        RequestError: There is no such run, its record is damaged, or pandas is missing.
    """
    return frames.load(run, runs=runs)
