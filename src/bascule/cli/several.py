"""A command that several processes do together: how they are started, and that one of them speaks."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from bascule.cli.output import complain
from bascule.cli.stopping import stoppable_while_waiting
from bascule.core.errors import Interrupted, LostError, RequestError
from bascule.core.host import started_together

if TYPE_CHECKING:
    from bascule.core.team import Team


def start_on_each(device: str, part: str | None = None) -> None:
    """Run this command again in a process for each device, where several are named, and end as they do.

    Raises:
        typer.Exit: They have ended.
    """
    from bascule.running.starting import devices_of, start_together

    size = len(devices_of(device))
    if part is None and not started_together():
        _tell_of_copies()
    if size > 1 and not started_together():
        raise typer.Exit(start_together(size, complain))


def _tell_of_copies() -> None:
    """Say, once, that srun runs a command several times which is to be run once: they would be in each other's way."""
    copies = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if copies != "1" and os.environ.get("SLURM_PROCID") == "0":
        complain(
            f"warning: srun started this command {copies} times, and each does the whole of it by itself. For one "
            "training by all of them, set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun does; to share "
            'the models out, give --part "$((SLURM_PROCID + 1))/$SLURM_NTASKS" inside bash -c'
        )


@contextlib.contextmanager
def met() -> Iterator[Team]:
    """The team of this process inside the block, where the first alone speaks and all of them can be stopped."""
    from bascule.core.team import joined

    waiting = stoppable_while_waiting() if started_together() else contextlib.nullcontext()
    with waiting, joined() as team, _told_once(team):
        yield team


@contextlib.contextmanager
def _told_once(team: Team) -> Iterator[None]:
    """Inside, of processes that work together the first alone says what is to be said, also what goes wrong in all.

    The others end after it, since what started them stops all when one ends. What goes wrong in one of them, that one
    says.
    """
    if team.leads:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except RequestError as error:
            if not team.is_common(error):
                raise
            _wait_for_first(team)
            raise typer.Exit(2) from None
        except Interrupted:
            raise typer.Exit(130) from None


def _wait_for_first(team: Team) -> None:
    with contextlib.suppress(LostError):
        team.gather(None)  # nobody answers; it is over when the first has gone
