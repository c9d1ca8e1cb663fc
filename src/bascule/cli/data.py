"""Commands about data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import bascule.cli.completion as completion
from bascule.cli.output import echo
from bascule.core.errors import RequestError


def get(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A source of data, e.g. mnist or cifar10.",
            autocompletion=completion.components("data"),
        ),
    ],
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="FOLDER", help="Folder to put it in; by default ~/.cache/bascule."),
    ] = None,
    place: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Folder on the web to get the files from instead.")
    ] = None,
) -> None:
    """Download the files of a data set, check their hashes, and put them where studies find them."""
    from bascule.core import catalog
    from bascule.data.contract import Source, cache_folder
    from bascule.data.download import fetch

    source: type[Source] = catalog.load("data", name)
    remotes = getattr(source, "remote", None)
    if remotes is None:
        known = [other for other in catalog.names("data") if catalog.load("data", other).remote]
        raise RequestError(f"data/{name} reads files that you have; {', '.join(known)} can be downloaded")
    if not remotes:
        echo(f"data/{name} needs no files")
        return
    folder = (data_dir or cache_folder()).expanduser()
    for remote in remotes:
        fetch(remote, folder, place=place, report=echo)
    use = f"; name it with --data-dir {folder} or $BASCULE_DATA" if data_dir else ""
    echo(f"data/{name} is in {folder}{use}")
