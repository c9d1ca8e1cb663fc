"""All commands, in the order in which `--help` lists them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from bascule.cli.audit import audit
from bascule.cli.catalog import ls, schema, show
from bascule.cli.check import check
from bascule.cli.data import get
from bascule.cli.evaluate import evaluate
from bascule.cli.model import filter_, repair, scan
from bascule.cli.new import new
from bascule.cli.options import in_options
from bascule.cli.output import silence
from bascule.cli.report import export, report, table
from bascule.cli.study import run, validate
from bascule.core.errors import RequestError


class Command(TyperCommand):
    """A command that tells what is wrong with a request in words of its own options."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options and arguments."""
        return _bare_flags(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            silence()  # before typer, whose exit code is that of a failed cell
            raise typer.Exit(141) from None
        except RequestError as error:
            raise in_options(error, [name for option in self.params for name in option.opts]) from error.__cause__


class Group(TyperGroup):
    """Several commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options."""
        return _bare_flags(super().get_params(ctx))


def _bare_flags(params: list[Any]) -> list[Any]:
    """Without the `<bool>` that typer writes behind options which take no value."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


app = typer.Typer(
    cls=Group,
    name="bascule",
    help="Measure both ends of an image classifier's security in one run: adversarial examples and backdoors.",
    epilog="Start with: bascule run digits",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(cls=Group, help="Data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"bascule {version('bascule')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command("run", cls=Command)(run)
app.command("evaluate", cls=Command)(evaluate)
app.command("audit", cls=Command)(audit)
app.command("table", cls=Command)(table)
app.command("report", cls=Command)(report)
app.command("export", cls=Command)(export)
app.command("check", cls=Command)(check)
app.command("ls", cls=Command)(ls)
app.command("show", cls=Command)(show)
app.command("schema", cls=Command)(schema)
app.command("filter", cls=Command)(filter_)
app.command("scan", cls=Command)(scan)
app.command("repair", cls=Command)(repair)
app.command("validate", cls=Command)(validate)
app.command("new", cls=Command)(new)
data_app.command("get", cls=Command)(get)
