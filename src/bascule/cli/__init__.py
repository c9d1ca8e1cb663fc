"""The command line. Thin: every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import typer

from bascule.cli.app import app
from bascule.core.errors import Interrupted, RequestError
from bascule.core.host import settle

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: a wrong request is one message and exit code 2, an interrupted run one message and 130."""
    settle()
    warnings.formatwarning = _warning
    try:
        app()
    except RequestError as error:
        typer.echo(f"bascule: {error}", err=True)
        sys.exit(2)
    except Interrupted as stopped:
        typer.echo(f"bascule: {stopped}", err=True)
        sys.exit(130)


_python = warnings.formatwarning


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours as one line; those of other packages as Python writes them."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"bascule: warning: {message}\n"
    return _python(message, category, filename, lineno, line)
