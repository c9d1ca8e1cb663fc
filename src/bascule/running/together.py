"""A run by several processes: all go through its cells together, the first one keeps, tells and prints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from bascule.core.errors import Interrupted, RequestError, placed
from bascule.core.host import started_together
from bascule.core.team import Team
from bascule.plan.plan import Cell, Plan
from bascule.record.run import RunRecord
from bascule.running.cell import Failure, try_cell
from bascule.running.context import RunContext, Speed
from bascule.running.resources import Resources, resources_of
from bascule.running.run import Engine, Ran, pick_device, run_plan
from bascule.running.starting import devices_of
from bascule.training.shares import check_shares


def own_device(device: str, team: Team) -> torch.device:
    """The device of this process.

    Args:
        device: One, one for each process of this machine (`cuda:0,1`), or a kind of which each takes its own.
        team: The processes.

    Raises:
        RequestError: No device of its machine, or not one for each; in all processes alike.
    """
    own = team.alike(lambda: pick_device(_own_part(device)))
    if team.size > 1 and own.type == "cuda":
        torch.cuda.set_device(own)
    return own


def pick_place(
    device: str, team: Team, engine: Engine, resources: Mapping[str, Any] | None
) -> tuple[torch.device, Resources]:
    """The device of this process, and what each cell is given on a cluster, whose workers look for theirs.

    Raises:
        RequestError: Not a device of this machine, or not what a cluster can give; in all processes alike.
    """
    given = team.alike(lambda: _resources(engine, device, resources))
    return torch.device("cpu") if engine == "ray" else own_device(device, team), given


def _resources(engine: Engine, device: str, wanted: Mapping[str, Any] | None) -> Resources:
    if engine == "ray":
        return resources_of(wanted, device)
    if wanted is not None:
        raise RequestError("only with `engine` ray, whose workers may lie on other machines", place=("resources",))
    return Resources()


def _own_part(device: str) -> str:
    names = devices_of(device)
    if not started_together():
        if len(names) > 1:
            raise RequestError(
                "several devices are for `bascule run`, which starts a process for each; start a script of your own "
                f"with torchrun; got {device!r}",
                place=("device",),
            )
        return device
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if len(names) > 1:
        if number >= len(names):
            raise RequestError(f"more processes were started than these devices: {device!r}", place=("device",))
        return names[number]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":  # one alone: each process is shown its own
        return f"cuda:{number if torch.cuda.device_count() > 1 else 0}"
    return device


def run_together(team: Team, plan: Plan, run: RunRecord, **options: Any) -> Ran:
    """`run_plan`, by a team: the first process as if it were alone, the others follow it from cell to cell.

    Only the first reads and writes the record, is told of progress, and tells.

    Raises:
        RequestError: As `run_plan`, in all processes alike; or there are cells that a team cannot do: side by side, or
            with batches that it cannot divide.
        LostError: A process has gone.
        Interrupted: Instead of KeyboardInterrupt.
    """
    if team.size == 1:
        return run_plan(plan, run, **options)
    team.share(lambda: _check_options(team, **options))
    team.first(lambda: _check_cells(plan.cells(), run, team))
    if not team.leads:
        try:
            return _follow(team, plan, run, **options)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the same command continues") from None
    begun: list[int] = []

    def begin(cells: Sequence[Cell]) -> Team:
        begun.append(len(cells))
        team.first(lambda: [cell.fingerprint for cell in cells])
        return team

    try:
        return run_plan(plan, run, **options, begin=begin)
    except Exception as error:
        if not begun:
            team.first(partial(_fail, error))
        raise


def _follow(team: Team, plan: Plan, run: RunRecord, *, device: torch.device, roots: Sequence[Path], **rest: Any) -> Ran:
    """What a process does that is not the first."""
    names = team.first(list[str])
    known = {cell.fingerprint: cell for cell in plan.cells()}
    if not known.keys() >= set(names):
        raise RequestError(
            f"process {team.rank} of {team.size} reads another study, other data or other code than the first: they "
            "must be the same wherever processes work together"
        )
    context = RunContext(run, device, tuple(roots), speed=rest.get("speed", Speed()), team=team)
    tried = [(known[name], try_cell(known[name], context)) for name in names]
    return Ran(len(names), tuple(Failure(cell.label, message) for cell, message in tried if message is not None))


def _check_options(
    team: Team, *, jobs: int | None = None, engine: str = "local", part: object = None, **_: Any
) -> None:
    side_by_side = {"engine": engine != "local", "jobs": (jobs or 1) > 1, "part": part is not None}
    for place in (name for name, wanted in side_by_side.items() if wanted):
        raise RequestError(
            f"{team.size} processes do each cell together, so that none is left to do cells side by side: leave it out",
            place=(place,),
        )


def _check_cells(cells: Sequence[Cell], run: RunRecord, team: Team) -> None:
    """See that the team can train what is not trained yet."""
    for cell in cells:
        training = cell.setup.train
        if training is not None and cell.setup.repair is None and not run.cell(cell.fingerprint).trained:
            with placed("train"):
                check_shares(training, team)


def _fail(error: Exception) -> NoReturn:
    raise error
