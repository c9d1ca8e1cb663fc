"""A study, from Python: what `bascule run` does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import torch
from rich.console import Console

from bascule.api.verb import verb, whole
from bascule.core.ahead import READ_AHEAD, Reading
from bascule.core.errors import Interrupted, RequestError, placed, unknown
from bascule.core.files import check_folder, check_writable
from bascule.core.given import outside
from bascule.core.progress import nothing
from bascule.core.team import ALONE, Team, joined
from bascule.core.text import count, quote
from bascule.data.contract import default_roots
from bascule.hooks.contract import Hook
from bascule.plan.document import Document, read_study, study_of, written
from bascule.plan.overrides import Override, parse_override
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.lock import Part
from bascule.record.run import RunRecord
from bascule.report.result import Run
from bascule.running.console import silent
from bascule.running.context import Speed
from bascule.running.extend import recall_codes
from bascule.running.run import Engine, Ran
from bascule.running.together import pick_place, run_together


@verb
def run(
    study: str | PathLike[str] | Mapping[str, Any],
    *,
    scale: str | None = None, seeds: int | None = None,
    set: Mapping[str, Any] | Sequence[str] = (),  # noqa: A002  (as the option is called)
    name: str | None = None, runs: str | PathLike[str] = "runs",
    device: str | torch.device = "auto", jobs: int | None = None, part: tuple[int, int] | None = None,
    engine: Engine = "local", resources: Mapping[str, Any] | None = None,
    data_dir: str | PathLike[str] | None = None,
    compile_passes: bool = False, capture_steps: bool = False, workers: int | None = None, read_ahead: int = READ_AHEAD,
    report: bool = False, progress: bool = True, hooks: Sequence[Hook] = (),
) -> Run:  # fmt: skip
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
        name: What a study that is a mapping is called (by default `study`), and so its run folder. What was made under
            this name before stays, and is used again where it is asked for again. A study in a file has its name.
        runs: Folder that holds the runs.
        device: auto, cpu, cuda or cuda:N. In a script that torchrun has started on several devices each process takes
            its own, and all train together (docs/guide/devices.md).
        jobs: Cells at the same time, each in a process of its own with one thread.
        part: Only the cells of part I of N, as (I, N) with I from 1, beside processes that do the other parts.
        engine: `local` or `ray`.
        resources: With Ray, what each cell is given: `{"gpu": 0.2, "cpu": 1, "memory": "4GiB"}`, and other resources by
            the names that the cluster knows; by default one core, and one GPU where there are some.
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
        RequestError: Anything wrong with the study or an argument, before any work; or another process works on it,
            or on this part of it.
        KeyboardInterrupt: It was stopped; what is finished is kept, and the text says how much that is.
    """
    return _run(
        _document(study, name), overrides=_overrides(set, seeds), scale=scale, runs=Path(runs), device=str(device),
        jobs=jobs, part=_part(part), engine=_engine(engine), resources=resources, report=report,
        speed=Speed(compile_passes, capture_steps, Reading(workers, read_ahead)), hooks=hooks,
        data_dir=None if data_dir is None else Path(data_dir), console=None if progress else silent(),
    )  # fmt: skip


def _run(document: Document, device: str, **asked: Any) -> Run:
    """`run_study` as Python expects it: interrupted by KeyboardInterrupt, and warned of what failed."""
    try:
        with joined() as team:
            made = run_study(document, team=team, device=device, **asked)
    except Interrupted as stopped:
        raise KeyboardInterrupt(str(stopped)) from None
    failed = {failure.label: failure.message for failure in made.done.failures}
    if failed:
        first, why = next(iter(failed.items()))
        some = count(len(failed), "cell")
        warnings.warn(f"{some} of {len(made.plan.cells())} failed (see `failed`): {first}: {why}", stacklevel=outside())
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
    team: Team = ALONE,
    jobs: int | None,
    engine: Engine,
    resources: Mapping[str, Any] | None,
    data_dir: Path | None,
    speed: Speed,
    report: bool,
    console: Console | None = None,
    warn: Callable[[str], object] | None = None,
    hooks: Sequence[Hook] = (),
    part: tuple[int, int] | None = None,
) -> Made:
    """What the command and the function share: the plan, its run folder, and the run with its page.

    All processes of a `team` call it alike; the first one keeps the page and is told of progress.

    Raises:
        RequestError: As `make_plan` and `run_plan`, or nothing can be written into `runs`.
        Interrupted: As `run_plan`.
    """

    def planned() -> Plan:
        return make_plan(document, overrides=overrides, scale=scale, roots=default_roots(data_dir))

    this = None if part is None else Part(*part)
    plan = team.alike(planned)
    where, given = pick_place(device, team, engine, resources)
    team.alike(lambda: check_folder(runs, "runs"))
    record = RunRecord(runs / plan.folder)
    team.first(lambda: check_writable(record.path))
    if team.alike(lambda: recall_codes(record)):
        plan = team.alike(planned)
    with _kept_current(record, wanted=report and team.leads, warn=warn or warnings.warn) as changed:
        done = run_together(
            team, plan, record, device=where, roots=default_roots(data_dir), engine=engine, jobs=jobs, resources=given,
            speed=speed, console=console, changed=changed, warn=warn, hooks=hooks, part=this,
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


def _document(study: Any, name: str | None) -> Document:
    if isinstance(study, Mapping):
        return study_of(study, name="study" if name is None else name)
    if name is not None:
        raise RequestError(
            "a study that is no mapping has its name: leave it out, or choose other `runs`", place=("name",)
        )
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
    more = [] if seeds is None else [Override(path="seeds", value=seeds, origin="seeds")]
    return [*given, *more]


def _change(path: Any, value: Any) -> str:
    if isinstance(value, str):
        return f"{path}={value}"
    with placed("set", str(path)):
        return f"{path}={written(value, flow=True)}"


def _part(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise RequestError(
            f"two whole numbers I and N, as (1, 4) for the first of four; got {quote(value)}", place=("part",)
        )
    return whole(value[0], "part"), whole(value[1], "part")


def _engine(value: Any) -> Engine:
    if value not in get_args(Engine):
        raise RequestError(unknown("engine", str(value), get_args(Engine)), place=("engine",))
    return cast(Engine, value)
