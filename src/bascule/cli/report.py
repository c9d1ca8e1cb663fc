"""Commands that show a run: its table, its page, its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import bascule.cli.completion as completion
from bascule.cli.options import FigureForm, Format, RunsOption, SeveralArgument, writable_file, writable_folder
from bascule.cli.output import echo, echo_json
from bascule.core.errors import RequestError

if TYPE_CHECKING:
    from bascule.record.run import RunRecord
    from bascule.report.tables.tables import More


def table(
    run: SeveralArgument,
    runs: RunsOption = Path("runs"),
    format_: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="ROW",
            help="Compare every row with this one, paired by seed and image.",
            autocompletion=completion.rows,
        ),
    ] = None,
    before: Annotated[
        bool, typer.Option("--before", help="Compare every repaired or filtered row with the same models before.")
    ] = False,
    pareto: Annotated[bool, typer.Option("--pareto", help="Say which rows another one beats at both ends.")] = False,
    by_class: Annotated[bool, typer.Option("--by-class", help="Every metric by true class.")] = False,
    map_: Annotated[
        bool,
        typer.Option("--map", help="ASR and robust accuracy over two numbers that differ, and where the effect turns."),
    ] = False,
    attackers: Annotated[
        bool, typer.Option("--attackers", help="Which recipe holds against which of the study's named attackers.")
    ] = False,
) -> None:
    """Print the joint table of a run, finished or not; of several runs, one table with the rows of all."""
    from bascule.report.runs import open_runs
    from bascule.report.tables.tables import More

    if map_ or attackers:
        if before or pareto or by_class or (map_ and attackers):
            asked = "map" if map_ else "attackers"
            raise RequestError(f"these tables stand alone: ask for `{asked}`, with `against` or without")
        _print_other(open_runs(run, runs), "map" if map_ else "attackers", format_, against)
        return
    print_table(open_runs(run, runs), format_, More(against=against, before=before, pareto=pareto, by_class=by_class))


def print_table(records: Sequence[RunRecord], form: Format, more: More | None = None) -> None:
    """Print the joint table of runs."""
    from bascule.core.shown import terminal_width
    from bascule.report.runs import rows_of
    from bascule.report.tables.tables import render

    _print(render(rows_of(records), form.value, more, width=terminal_width()), form)


def _print_other(records: Sequence[RunRecord], what: str, form: Format, against: str | None) -> None:
    from bascule.core.shown import terminal_width
    from bascule.report.runs import rows_of
    from bascule.report.tables.attackers import render_attackers
    from bascule.report.tables.maps import render_maps

    render = render_maps if what == "map" else render_attackers
    _print(render(rows_of(records), form.value, against, width=terminal_width()), form)


def _print(text: str, form: Format) -> None:
    if form is Format.json:
        echo_json(text)
    else:
        echo(text, nl=False)


def report(
    run: SeveralArgument,
    runs: RunsOption = Path("runs"),
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write; by default report.html in the run folder. Needed for several runs."
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page with the table, the trade-off picture and the evidence.

    Several runs stand side by side on one page, with what differs between them.
    """
    from bascule.report.page.page import write_page
    from bascule.report.runs import open_runs

    records = open_runs(run, runs)
    # In a run that somebody sent, a link may lead anywhere: one is followed only where the user says so.
    place = _output(records, output, "report.html")
    echo(write_page(records, place if output is None else writable_file(place)))


def export(
    run: SeveralArgument,
    runs: RunsOption = Path("runs"),
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder to write to; by default `export` in the run folder. Needed for several runs."
        ),
    ] = None,
    format_: Annotated[
        list[FigureForm] | None,
        typer.Option("--format", metavar="svg|png|pdf", help="Format of the figures; by default all. Repeatable."),
    ] = None,
) -> None:
    """Write every figure of the report as SVG, PNG and PDF, and the table as CSV, JSON, Markdown and LaTeX."""
    from bascule.report.export import export as write
    from bascule.report.runs import open_runs

    records = open_runs(run, runs)
    folder = writable_folder(_output(records, output, "export"))
    forms: list[Any] = [form.value for form in format_ or FigureForm]
    for path in write(records, folder, forms=forms):
        echo(path)


def _output(records: Sequence[RunRecord], given: Path | None, name: str) -> Path:
    """Where to write what is made of these runs; several have no folder of their own."""
    if given is None and len(records) > 1:
        raise RequestError(f"{len(records)} runs have no folder in common: say where to write, with --output {name}")
    return given or records[0].path / name
