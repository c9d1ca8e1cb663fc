"""The command line. Thin: every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from bascule.cli.app import app
from bascule.cli.failures import explain
from bascule.cli.output import complain, flush, settle_streams, silence
from bascule.cli.stopping import stoppable
from bascule.core.errors import Interrupted, RequestError
from bascule.core.host import settle, started_together

__all__ = ["app", "main"]

_PIPE_CLOSED = 141
"""What a shell sees of a program that wrote to a pipe which nobody reads: 128 + SIGPIPE."""


def main() -> None:
    """Entry point: whatever goes wrong is one message and an exit code.

    2 for a wrong request, 130 for an interrupted run (143 where SIGTERM did it), 1 for what the system refuses (a full
    disk, no memory), and quietly 141 for a reader that has gone.
    """
    settle()
    settle_streams()
    with stoppable() as came:
        code = _code_of_command()
    if came[:1] == [signal.SIGTERM]:
        code = 128 + signal.SIGTERM
    if started_together():
        _leave(code)
    sys.exit(code)


def _code_of_command() -> int:
    """Do what the command line says, and say what went wrong."""
    code = 0
    try:
        try:
            with _shell_named(sys.argv[1:]):
                app(prog_name="bascule")  # also as `python -m bascule`
        except SystemExit as stop:
            code = _code(stop)
        flush()
    except RequestError as error:
        complain(str(error))
        code = 2
    except Interrupted as stopped:
        complain(str(stopped))
        code = 130
    except BrokenPipeError:
        silence()
        code = _PIPE_CLOSED
    except Exception as error:
        problem = explain(error)
        if problem is None:
            raise
        silence()
        complain(problem)
        code = 1
    return code


def _leave(code: int) -> NoReturn:
    """End at once, past torch's threads for exchanging numbers: now and then they abort a process at its end
    ("terminate called without an active exception", torch 2.13 with Gloo), whose exit code would say that it failed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _code(stop: SystemExit) -> int:
    return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1


@contextmanager
def _shell_named(words: Sequence[str]) -> Iterator[None]:
    """Inside the block, `--show-completion zsh` is about that shell, and one that typer does not know is refused.

    Typer finds out itself in which shell it runs, and passes over a name, unless this variable is set.

    Args:
        words: Of the command line.
    """
    switch = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"
    named = len(words) == 2 and words[0] in ("--show-completion", "--install-completion")
    if named:
        os.environ[switch] = "1"
    try:
        yield
    finally:
        if named:
            del os.environ[switch]
