"""Running a plan: the cells that are not done yet, on one of the engines."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from bascule.core.ahead import Reading
from bascule.core.catalog import describe, remember_named
from bascule.core.errors import Interrupted, RequestError
from bascule.core.host import available_cores
from bascule.core.progress import Progress, nothing
from bascule.core.text import count
from bascule.hooks.contract import Hook
from bascule.plan.plan import Cell, Plan
from bascule.record.cell import CellRecord
from bascule.record.lock import lock_run
from bascule.record.mending import clear_leftovers, mend_cell, mend_run
from bascule.record.run import RunRecord
from bascule.running.cell import Failure, is_done, try_cell
from bascule.running.console import console_progress
from bascule.running.context import RunContext
from bascule.running.hooked import hooks_of, telling
from bascule.running.loss import refuse_loss
from bascule.running.provenance import own_command
from bascule.training.capture import check_captures
from bascule.training.compile import check_compiles

Engine = Literal["local", "ray"]


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
    console: Console | None = None,
    train: bool = True,
    compile_passes: bool = False,
    capture_steps: bool = False,
    reading: Reading = Reading(),  # noqa: B008  (frozen)
    changed: Callable[[], object] = nothing,
    warn: Callable[[str], object] | None = None,
    hooks: Sequence[Hook] = (),
) -> Ran:
    """Do what the record does not hold yet. A cell that fails is recorded as failed and tried again next time.

    With `train=False` only cells whose model is there are worked on, and only evaluated; the table shows what it showed
    before until all of them have answered. With `jobs` above 1 so many cells are done at the same time, each in a
    process of its own with one torch thread; else one after another in this process. Files of the record that are
    damaged are set aside and made again, which `warn` is told (by default a warning). With `compile_passes` the passes
    of training are compiled, with `capture_steps` its steps captured as CUDA graphs, where the objective allows it.
    `reading` says how pictures on disk are decoded, on every core unless told otherwise. `changed` is called before the
    first cell and whenever one has ended, when the record holds something new. `console`, by default standard error, is
    told how far the work is: with bars on a terminal, else with lines. `hooks` are told what happens
    (`bascule.hooks.Hook`), beside those that other packages have installed.

    Raises:
        RequestError: The data cannot be read, a hook is none, the engine is not installed or takes no `jobs`, nothing
            can be compiled or captured here, another process works on this run, or, with `train=False`, its models and
            answers are not those of the plan.
        Interrupted: Instead of KeyboardInterrupt.
    """
    warn = warn or _warn
    do, told = _engine(engine, jobs), hooks_of(hooks)
    remember_named()  # the plan names it
    _check_quick(device, compile_passes, capture_steps)
    with lock_run(run.path, own_command()):
        if not train:
            refuse_loss(run, plan, roots)
        records = [(cell, run.cell(cell.fingerprint)) for cell in plan.cells()]
        _mend(run, [record for _, record in records], warn)
        for note in _notes(run, plan, records) if train else ():
            warn(note)
        pending = [cell for cell, record in records if not is_done(cell, record) and (train or record.trained)]
        keep = run.write_plan if train or not pending else run.write_asked
        keep(plan.recorded())
        context = RunContext(run, device, tuple(roots), Progress(), compile_passes, capture_steps, reading)
        try:
            with telling(told, plan, run, pending, warn) as (listening, failures):
                if pending:
                    changed()
                    with console_progress(console or Console(stderr=True), len(pending), changed) as progress:
                        failures += do(pending, replace(context, progress=progress, telling=listening))
                    if not train and all(is_done(cell, run.cell(cell.fingerprint)) for cell in pending):
                        run.write_plan(plan.recorded())
        except KeyboardInterrupt:
            raise _interrupted(run, records) from None
    return Ran(len(pending), tuple(failures))


def _check_quick(device: torch.device, compile_passes: bool, capture_steps: bool) -> None:
    if compile_passes:
        check_compiles(device)
    if capture_steps:
        check_captures(device)


def _interrupted(run: RunRecord, records: Sequence[tuple[Cell, CellRecord]]) -> Interrupted:
    done, cells = sum(is_done(cell, record) for cell, record in records), count(len(records), "cell is", "cells are")
    return Interrupted(f"interrupted: {done} of {cells} done and kept in {run.path}; the same command continues")


def _mend(run: RunRecord, cells: Sequence[CellRecord], warn: Callable[[str], object]) -> None:
    """Clear what killed processes left, set aside what is damaged, and say so."""
    clear_leftovers(run.path)
    for damage in [*mend_run(run), *(damage for cell in cells for damage in mend_cell(cell))]:
        warn(f"{damage}. It was set aside (*.damaged); `bascule run` makes it again")


def _notes(run: RunRecord, plan: Plan, records: Sequence[tuple[Cell, CellRecord]]) -> Iterator[str]:
    """What is to be said before the models of a study are made."""
    if dropped := _no_longer_asked(run, plan):
        yield f"not in the study, and so not in its table any more, but kept: {', '.join(dropped)}"
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


def _engine(engine: Engine, jobs: int | None) -> Callable[[Sequence[Cell], RunContext], list[Failure]]:
    """What does cells, `jobs` at a time.

    Raises:
        RequestError: It cannot.
    """
    if jobs is None:
        return _ENGINES[engine]
    if jobs < 1:
        raise RequestError(f"at least one cell at a time; got {jobs}", place=("jobs",))
    if engine != "local":
        raise RequestError(
            f"not with `engine` {engine}, which does as many cells at a time as it has cores or GPUs; leave out one of "
            "the two",
            place=("jobs",),
        )
    return _run_here if jobs == 1 else functools.partial(_run_in_processes, jobs=jobs)


def _run_here(cells: Sequence[Cell], run: RunContext) -> list[Failure]:
    failures = []
    for cell in cells:
        run.progress.begin(cell.label)
        run.telling.begun(cell)
        began = time.monotonic()
        message = try_cell(cell, run)
        seconds = time.monotonic() - began
        run.progress.end(cell.label, seconds, message)
        run.telling.ended(cell, seconds, message)
        if message is not None:
            failures.append(Failure(cell.label, message))
    return failures


def _run_in_processes(cells: Sequence[Cell], run: RunContext, *, jobs: int) -> list[Failure]:
    from bascule.running.processes import run_cells

    return run_cells(cells, replace(run, reading=run.reading.shared_by(jobs)), jobs)


def _run_on_ray(cells: Sequence[Cell], run: RunContext) -> list[Failure]:
    from bascule.running.ray import run_cells  # looks for Ray only where it is wanted

    return run_cells(cells, replace(run, reading=run.reading.shared_by(available_cores())))


_ENGINES = {"local": _run_here, "ray": _run_on_ray}
