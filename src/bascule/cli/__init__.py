"""The command line. Thin: every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys

import typer

from bascule.cli.app import app
from bascule.core.errors import Interrupted, RequestError
from bascule.core.host import settle

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: a wrong request is one message and exit code 2, an interrupted run one message and 130."""
    settle()
    try:
        app()
    except RequestError as error:
        typer.echo(f"bascule: {error}", err=True)
        sys.exit(2)
    except Interrupted as stopped:
        typer.echo(f"bascule: {stopped}", err=True)
        sys.exit(130)
