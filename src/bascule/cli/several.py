"""A command that several processes do together: how they are started, and that one of them speaks."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import typer

from bascule.core.errors import Interrupted, RequestError
from bascule.core.host import leads, started_together


def start_on_each(device: str) -> None:
    """Run this command again in a process for each device, where several are named, and end as they do.

    Raises:
        typer.Exit: They have ended.
    """
    from bascule.running.starting import devices_of, start_together

    size = len(devices_of(device))
    if size > 1 and not started_together():
        raise typer.Exit(start_together(size))


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Inside, of processes that work together the first alone says what is to be said, also what goes wrong in all.

    What goes wrong in one of them, that one says.
    """
    if leads():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except RequestError as error:
            if not hasattr(error, "in_all_processes"):
                raise
            raise typer.Exit(2) from None
        except Interrupted:
            raise typer.Exit(130) from None
