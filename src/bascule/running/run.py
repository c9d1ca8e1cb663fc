"""Running a plan: the cells that are not done yet, on one of the engines."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from bascule.core.catalog import describe, remember_named
from bascule.core.errors import Interrupted, RequestError
from bascule.core.progress import nothing
from bascule.core.team import ALONE, Team
from bascule.core.text import count
from bascule.hooks.contract import Hook
from bascule.plan.plan import Cell, Plan
from bascule.record.cell import CellRecord
from bascule.record.lock import Part, lock_cell, lock_run
from bascule.record.mending import clear_cell, clear_leftovers, mend_cell, mend_run
from bascule.record.run import RunRecord
from bascule.record.sums import DamagedError
from bascule.running.cell import Failure, is_done, try_cell
from bascule.running.console import console_progress
from bascule.running.context import RunContext, Speed
from bascule.running.hooked import hooks_of, telling
from bascule.running.loss import lost_of, refuse_loss
from bascule.running.parts import Shared, cells_of_part, open_cells, refuse_other_plan
from bascule.running.provenance import own_command
from bascule.running.resources import Resources
from bascule.running.waiting import Waiting

Engine = Literal["local", "ray"]
_GLANCE = 0.2
"""Seconds after which a cell's lock that is held is not one that another part only looks at."""


@dataclass(frozen=True)
class Ran:
    """What a run did."""

    cells: int
    """Cells that were worked on; the others were done before."""
    failures: tuple[Failure, ...]


def pick_device(name: str) -> torch.device:
    """`auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        RequestError: Not a device of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise RequestError(f"allowed are auto, cpu, cuda and cuda:N; got {name!r}", place=("device",))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        devices = torch.cuda.device_count()
        raise RequestError(f"this machine has {count(devices, 'CUDA device')}; got {name!r}", place=("device",))
    return device


def run_plan(
    plan: Plan,
    run: RunRecord,
    *,
    device: torch.device,
    roots: Sequence[Path],
    engine: Engine = "local",
    jobs: int | None = None,
    resources: Resources = Resources(),  # noqa: B008  (frozen)
    console: Console | None = None,
    train: bool = True,
    speed: Speed = Speed(),  # noqa: B008  (frozen)
    changed: Callable[[], object] = nothing,
    warn: Callable[[str], object] | None = None,
    hooks: Sequence[Hook] = (),
    part: Part | None = None,
    begin: Callable[[Sequence[Cell]], Team] = lambda _: ALONE,
) -> Ran:
    """Do what the record does not hold yet. A cell that fails is recorded as failed and tried again next time.

    With `train=False` only cells whose model is there are worked on, and only evaluated; the table shows what it showed
    before until all of them have answered. With `jobs` above 1 so many cells are done at the same time, each in a
    process of its own with one torch thread; else one after another in this process. On Ray each cell is given
    `resources`, and `device` is not asked. Files of the record that are damaged are set aside and made again, which
    `warn` is told (by default a warning). `changed` is called when there is something new in the record: before the
    first cell, and whenever one has ended. `console`, by default standard error, is told how far the work is: with bars
    on a terminal, else with lines. `hooks` are told what happens (`bascule.hooks.Hook`), beside those that other
    packages have installed. A `part` does the cells that are its own (`parts.cells_of_part`) and those that they need,
    beside processes that do other parts. `begin` is told the cells to work on, and gives who does (`running.together`).

    Raises:
        RequestError: The data cannot be read, a hook is none, the engine is not installed or takes no `jobs` or `part`,
            nothing can be compiled or captured here, another process works on this run or this part of it, or on
            another plan or number of parts, or, with `train=False`, its models and answers are not those of the plan.
        Interrupted: Instead of KeyboardInterrupt.
    """
    warn = warn or _warn
    do, told = _engine(engine, jobs, part, resources), hooks_of(hooks)
    remember_named()  # the plan names it
    if engine == "local":  # else the workers look
        speed.check(device)
    cells = plan.cells() if part is None else cells_of_part(plan, part)
    records = [(cell, run.cell(cell.fingerprint)) for cell in cells]
    with lock_run(run.path, own_command(), part) as let_others_begin:
        if part is None:
            pending = _begin_alone(plan, run, records, roots, train, warn)
        else:
            pending = _begin_part(plan, run, records, roots, part, let_others_begin, warn)
        context = RunContext(run, device, tuple(roots), speed=speed, team=begin(pending))
        try:
            with telling(told, plan, run, pending, warn) as (listening, failures):
                if pending:
                    changed()
                    with console_progress(console or Console(stderr=True), len(pending), changed) as progress:
                        failures += do(pending, replace(context, progress=progress, telling=listening))
                    if not train and all(is_done(cell, run.cell(cell.fingerprint)) for cell in pending):
                        run.write_plan(plan.recorded())
        except KeyboardInterrupt:
            raise _interrupted(run, records, part) from None
    return Ran(len(pending), tuple(failures))


def _begin_alone(
    plan: Plan,
    run: RunRecord,
    records: Sequence[tuple[Cell, CellRecord]],
    roots: Sequence[Path],
    train: bool,
    warn: Callable[[str], object],
) -> list[Cell]:
    """Mend the record and write the plan; the cells to work on."""
    if not train:
        refuse_loss(run, plan, roots)
    clear_leftovers(run.path)
    _tell(mend_run(run), warn)
    for _, record in records:
        _mend(record, warn)
    for note in _notes(run, plan, records, roots) if train else ():
        warn(note)
    pending = [cell for cell, record in records if not is_done(cell, record) and (train or record.trained)]
    keep = run.write_plan if train or not pending else run.write_asked
    keep(plan.recorded())
    return pending


def _begin_part(
    plan: Plan,
    run: RunRecord,
    records: Sequence[tuple[Cell, CellRecord]],
    roots: Sequence[Path],
    part: Part,
    let_others_begin: Callable[[], object],
    warn: Callable[[str], object],
) -> list[Cell]:
    """Write the plan, let others begin, and mend what the part has to do with; the cells to work on."""
    refuse_other_plan(plan, run, part)
    clear_leftovers(run.path, alone=False)
    _tell(mend_run(run), warn)
    for note in _notes(run, plan, records, roots):
        warn(note)
    run.write_plan(plan.recorded())
    let_others_begin()
    return open_cells([cell for cell, _ in records], plan, run, functools.partial(_mend, warn=warn, patience=_GLANCE))


def _interrupted(run: RunRecord, records: Sequence[tuple[Cell, CellRecord]], part: Part | None) -> Interrupted:
    own = "" if part is None else f" of {part}"
    done, cells = sum(is_done(cell, record) for cell, record in records), len(records)
    kept = f"{done} of {count(cells, f'cell{own} is', f'cells{own} are')} done and kept in {run.path}"
    return Interrupted(f"interrupted: {kept}; the same command continues")


def _mend(cell: CellRecord, warn: Callable[[str], object], *, patience: float = -1) -> None:
    """Clear what a killed process left of a cell, set aside what is damaged, and say so; not where somebody else is at
    the cell, who has done it."""
    if not cell.path.is_dir():
        return
    with lock_cell(cell.path, patience=patience) as free:
        if free:
            clear_cell(cell.path)
            _tell(mend_cell(cell), warn)


def _tell(damaged: Iterable[DamagedError], warn: Callable[[str], object]) -> None:
    for damage in damaged:
        warn(f"{damage}. It was set aside (*.damaged); `bascule run` makes it again")


def _notes(
    run: RunRecord, plan: Plan, records: Sequence[tuple[Cell, CellRecord]], roots: Sequence[Path]
) -> Iterator[str]:
    """What is to be said before the models of a study are made."""
    if dropped := _no_longer_asked(run, plan):
        yield f"not in the study, and so not in its table any more, but kept: {', '.join(dropped)}"
    elif run.plan_file.is_file() and (lost := lost_of(run, plan, roots)):
        yield (
            f"the table of {run.path} becomes another one: {lost}. What it held is kept, and comes back with the study "
            "as it was; to have both tables, keep this one's runs in another folder"
        )
    if unseen := _without_looks(records):
        yield f"{unseen}; make them anew in another run folder to see it"


def _no_longer_asked(run: RunRecord, plan: Plan) -> list[str]:
    """What was added to the recorded plan, after its study was run, and is not in this one."""
    known = run.plan().overrides if run.plan_file.is_file() else ()
    return [text for text in known if "+=" in text.partition("=")[0] + "=" and text not in plan.overrides]


def _without_looks(records: Sequence[tuple[Cell, CellRecord]]) -> str:
    """Which models that shall be looked at along their training are trained without that; "" if none is."""
    wanted = [
        (cell.watch.probe, record) for cell, record in records if cell.watch is not None and cell.setup.repair is None
    ]
    seen = [(probe, record.info().get("probe") or {}) for probe, record in wanted if record.trained]
    other = sum(
        any(about.get(name) != value for name, value in (describe(probe) or {}).items()) for probe, about in seen
    )
    if not other:
        return ""
    what = count(other, "model is trained already and is", "models are trained already and are")
    return f"{what} not trained again for probe, which looks at models while they are trained"


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def _engine(
    engine: Engine, jobs: int | None, part: Part | None, resources: Resources
) -> Callable[[Sequence[Cell], RunContext], list[Failure]]:
    """What does cells, `jobs` at a time.

    Raises:
        RequestError: It cannot.
    """
    if part is not None and engine != "local":
        raise RequestError(
            f"not with `engine` {engine}, which shares a run out itself; leave out one of the two", place=("part",)
        )
    if jobs is not None and jobs < 1:
        raise RequestError(f"at least one cell at a time; got {jobs}", place=("jobs",))
    if jobs is not None and engine != "local":
        raise RequestError(
            f"not with `engine` {engine}, which does as many cells at a time as it has cores or GPUs; leave out one of "
            "the two",
            place=("jobs",),
        )
    if engine == "ray":
        return functools.partial(_run_on_ray, resources=resources)
    return functools.partial(_run_locally, jobs=1 if jobs is None else jobs, part=part)


def _run_locally(cells: Sequence[Cell], run: RunContext, *, jobs: int, part: Part | None) -> list[Failure]:
    waiting = Waiting(cells, run) if part is None else Shared(cells, run)
    if jobs > 1:
        from bascule.running.processes import run_cells

        return run_cells(waiting, replace(run, speed=run.speed.with_reading(run.speed.reading.shared_by(jobs))), jobs)
    while waiting:
        cell = waiting.begin()
        if cell is None:
            time.sleep(waiting.pause or 0)
            continue
        began = time.monotonic()
        failure = try_cell(cell, run)
        waiting.end(cell, time.monotonic() - began, failure)
    return waiting.failures


def _run_on_ray(cells: Sequence[Cell], run: RunContext, *, resources: Resources) -> list[Failure]:
    from bascule.running.ray import run_cells  # looks for Ray only where it is wanted

    return run_cells(cells, run, resources)
