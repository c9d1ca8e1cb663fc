"""A study, from Python: what `bascule run` does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from rich.console import Console

from bascule.api.verb import path, whole, whole_or_none
from bascule.core.ahead import READ_AHEAD, Reading
from bascule.core.errors import Interrupted, RequestError, placed, unknown
from bascule.core.files import check_writable
from bascule.core.progress import nothing
from bascule.core.text import count, quote
from bascule.data.contract import default_roots
from bascule.hooks.contract import Hook
from bascule.plan.document import Document, read_study, study_of, written
from bascule.plan.overrides import Override, parse_override
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.run import RunRecord
from bascule.report.result import Run
from bascule.running.console import silent
from bascule.running.extend import recall_codes
from bascule.running.run import Engine, Ran, pick_device, run_plan


def run(
    study: str | PathLike[str] | Mapping[str, Any],
    *,
    scale: str | None = None,
    seeds: int | None = None,
    set: Mapping[str, Any] | Sequence[str] = (),  # noqa: A002  (as the option is called)
    name: str = "study",
    runs: str | PathLike[str] = "runs",
    device: str = "auto",
    jobs: int | None = None,
    engine: Engine = "local",
    data_dir: str | PathLike[str] | None = None,
    compile_passes: bool = False,
    capture_steps: bool = False,
    workers: int | None = None,
    read_ahead: int = READ_AHEAD,
    report: bool = False,
    progress: bool = True,
    hooks: Sequence[Hook] = (),
) -> Run:
    """Train, attack from both sides, measure: what `bascule run` does, with the same record and the same bytes.

    What is recorded already is not done again: the same call continues where it was stopped, also one that
    KeyboardInterrupt stopped. A model that fails is recorded as failed and the others go on; a warning says so,
    `.failed` says why, and the same call tries it again.

    Args:
        study: A built-in study (`bascule ls studies`), the path of a .yaml file, or what stands in one as a mapping.
        scale: Which of the study's scales; by default its first.
        seeds: Number of seeds instead of the study's.
        set: Settings changed in every row, or with `rows.NAME...` in one: `{"train.epochs": 3}` or
            `["train.epochs=3"]`; texts are read as in a file.
        name: What a study that is a mapping is called, and its run folder; what was made under it before is used again.
        runs: Folder that holds the runs.
        device: auto, cpu, cuda or cuda:N.
        jobs: Cells at the same time, each in a process of its own with one thread.
        engine: `local` or `ray`.
        data_dir: Folder searched first for data; then $BASCULE_DATA, ./data, ~/.cache/bascule and here.
        compile_passes: Compile the passes of training, where the objective allows it.
        capture_steps: Capture the steps of training as CUDA graphs, where the objective allows it.
        workers: Threads that decode pictures on disk; by default one a core.
        read_ahead: MiB of pictures decoded before they are asked for, at most.
        report: Keep report.html in the run folder current.
        progress: Whether to say on standard error how far the work is.
        hooks: What is told of cells, epochs and the table (`bascule.hooks.Hook`), beside those that are installed.

    Returns:
        The run: `found["Adv. training"]["asr"].value` with `.low`, `.high` and `.n`, `found.rows` and the other frames,
        `found.check("asr.high < 5 %")`, `found.report()`, `found.path`. Printed, it is the table.

    Raises:
        RequestError: Anything wrong with the study or an argument, before any work; or another process works on it.
        KeyboardInterrupt: It was stopped; what is finished is kept, and the text says how much that is.
    """
    return _run(
        _document(study, name), overrides=_overrides(set, seeds), scale=_text(scale, "scale"), runs=path(runs, "runs"),
        device=device, jobs=whole_or_none(jobs, "jobs"), engine=_engine(engine), compile_passes=compile_passes,
        data_dir=None if data_dir is None else path(data_dir, "data_dir"), capture_steps=capture_steps, report=report,
        reading=_reading(workers, read_ahead), console=None if progress else silent(), hooks=hooks,
    )  # fmt: skip


def _run(document: Document, **asked: Any) -> Run:
    """`run_study` as Python expects it: interrupted by KeyboardInterrupt, and warned of what failed."""
    try:
        made = run_study(document, **asked)
    except Interrupted as stopped:
        raise KeyboardInterrupt(str(stopped)) from None
    failed = {failure.label: failure.message for failure in made.done.failures}
    if failed:
        first, why = next(iter(failed.items()))
        some = count(len(failed), "cell")
        warnings.warn(f"{some} of {len(made.plan.cells())} failed (see `failed`): {first}: {why}", stacklevel=3)
    return Run(made.record, failed=failed)


class Made(NamedTuple):
    """A study that was run."""

    plan: Plan
    record: RunRecord
    done: Ran


def run_study(
    document: Document,
    *,
    overrides: Sequence[Override],
    scale: str | None,
    runs: Path,
    device: str,
    jobs: int | None,
    engine: Engine,
    data_dir: Path | None,
    compile_passes: bool,
    capture_steps: bool,
    reading: Reading,
    report: bool,
    console: Console | None = None,
    warn: Callable[[str], object] | None = None,
    hooks: Sequence[Hook] = (),
) -> Made:
    """What the command and the function share: the plan, its run folder, and the run with its page.

    Raises:
        RequestError: As `make_plan` and `run_plan`, or nothing can be written into `runs`.
        Interrupted: As `run_plan`.
    """

    def planned() -> Plan:
        return make_plan(document, overrides=overrides, scale=scale, roots=default_roots(data_dir))

    plan = planned()
    where = pick_device(device)
    record = RunRecord(runs / plan.folder)
    check_writable(record.path)
    if recall_codes(record):
        plan = planned()
    with _kept_current(record, wanted=report, warn=warn or warnings.warn) as changed:
        done = run_plan(
            plan, record, device=where, roots=default_roots(data_dir), engine=engine, jobs=jobs, console=console,
            compile_passes=compile_passes, capture_steps=capture_steps, reading=reading, changed=changed, warn=warn,
            hooks=hooks,
        )  # fmt: skip
    return Made(plan, record, done)


@contextmanager
def _kept_current(record: RunRecord, *, wanted: bool, warn: Callable[[str], object]) -> Iterator[Callable[[], object]]:
    """What to call when the record has changed, so that its page follows."""
    if not wanted:
        yield nothing
        return
    from bascule.report.page.live import LivePage

    page = LivePage(record, record.path / "report.html", warn=warn)
    try:
        yield page.changed
    finally:
        page.close()


# --- what was given --------------------------------------------------------------------------------------------------


def _document(study: Any, name: str) -> Document:
    if isinstance(study, Mapping):
        return study_of(study, name=name)
    if not isinstance(study, (str, PathLike)):
        problem = f"a built-in name, the path of a .yaml file, or a mapping; got {quote(study)}"
        raise RequestError(problem, place=("study",))
    return read_study(fspath(study))


def _overrides(changes: Mapping[str, Any] | Sequence[str], seeds: int | None) -> list[Override]:
    """As those of the command, which keep in the record how they were written."""
    texts: Any = [changes] if isinstance(changes, str) else changes
    if isinstance(changes, Mapping):
        texts = [_change(path, value) for path, value in changes.items()]
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise RequestError(f"a mapping, or texts such as train.epochs=3; got {quote(changes)}", place=("set",))
    given = [parse_override(text, "set") for text in texts]
    more = [] if seeds is None else [Override(path="seeds", value=whole_or_none(seeds, "seeds"), origin="seeds")]
    return [*given, *more]


def _change(path: Any, value: Any) -> str:
    if isinstance(value, str):
        return f"{path}={value}"
    with placed("set", str(path)):
        return f"{path}={written(value, flow=True)}"


def _text(value: Any, place: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RequestError(f"expected text, got {quote(value)}", place=(place,))
    return value


def _reading(workers: Any, read_ahead: Any) -> Reading:
    return Reading(whole_or_none(workers, "workers"), whole(read_ahead, "read_ahead"))


def _engine(value: Any) -> Engine:
    if value not in get_args(Engine):
        raise RequestError(unknown("engine", str(value), get_args(Engine)), place=("engine",))
    return cast(Engine, value)
