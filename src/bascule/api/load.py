"""A run that was made before, as a result."""

from __future__ import annotations

from os import PathLike, fspath

from bascule.api.verb import path
from bascule.core.errors import RequestError
from bascule.core.text import quote
from bascule.record.run import open_run
from bascule.report.result import Run


def load(run: str | PathLike[str], *, runs: str | PathLike[str] = "runs") -> Run:
    """A recorded run, finished or not, as `bascule.run` gives it: its table by name, its frames, its page.

    `bascule.load("digits")["Adv. training"]["asr"].value` is a number of the table; `.rows`, `.cells` and `.outcomes`
    are pandas frames (extra `bascule[frames]`) of its rows, models and single answers: see `Frames`.

    Args:
        run: A run folder, or the name of a study that was run.
        runs: Folder that holds the runs.

    Raises:
        RequestError: There is no such run, or its plan is damaged.
    """
    if not isinstance(run, (str, PathLike)):
        raise RequestError(f"a run folder, or the name of a study that was run; got {quote(run)}", place=("run",))
    return Run(open_run(fspath(run), path(runs, "runs")))
