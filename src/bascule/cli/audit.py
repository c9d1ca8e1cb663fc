"""The command `audit`: everything there is to say of one model, or of a data set alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import bascule.cli.completion as completion
from bascule.cli.options import (
    ArchitectureOption,
    DataDirOption,
    DeviceOption,
    Format,
    RunsOption,
    TrustCodeOption,
    spec_of,
    specs_of,
)
from bascule.cli.output import complain, echo, echo_json
from bascule.core.errors import RequestError

if TYPE_CHECKING:
    from bascule.report.audited.audit import Audit

_ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="The folder of a cell (runs/.../cells/...), or a file of weights. Without one, the images of --data are "
        "ranked.",
        autocompletion=completion.models,
    ),
]
_DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="A source, e.g. mnist or '{name: folder, path: ...}'; a cell has its own.",
        autocompletion=completion.components("data"),
    ),
]
_FullOption = Annotated[
    bool,
    typer.Option("--full", help="AutoAttack, every scanner and filter with its own settings, however long that takes."),
]
_MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        min=0.001,
        max=10_000,
        metavar="N",
        help="About what the light set may take on an idle machine; by default 6. Not with --full.",
    ),
]
_ImagesOption = Annotated[
    int | None,
    typer.Option("--images", min=1, metavar="N", help="Test images; by default as many as there is time for."),
]
_RepairOption = Annotated[
    list[str] | None,
    typer.Option(
        "--repair",
        metavar="NAME",
        help="Also measure the model after this repair, at both ends. Repeatable.",
        autocompletion=completion.components("repair"),
    ),
]
_SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, metavar="N", help="Of everything that is drawn; by default the cell's own, or 0."),
]
_OtherDataOption = Annotated[
    bool,
    typer.Option(
        "--other-training-data", help="The model was trained on other data than these: no filter judges them."
    ),
]


def audit(
    model: _ModelArgument = None,
    data: _DataOption = None,
    architecture: ArchitectureOption = None,
    full: _FullOption = False,
    minutes: _MinutesOption = None,
    images: _ImagesOption = None,
    repair: _RepairOption = None,
    other_training_data: _OtherDataOption = False,
    runs: RunsOption = Path("runs"),
    seed: _SeedOption = None,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    trust_code: TrustCodeOption = False,
    format_: Annotated[Format, typer.Option("--format", help="Output format: text or json.")] = Format.text,
) -> None:
    """Look at one model from both sides and say what was found, and what was not looked at.

    Proposes a study, runs it, and writes its verdict, record and page into a run folder; the same command again
    continues. Exit code 3: there is reason to suspect a backdoor, or the scanners leave it undecided.
    """
    from bascule.api.audit import conduct_audit, prepare_audit, wish_of

    if format_ not in (Format.text, Format.json):
        raise RequestError(f"--format {format_.value}: an audit is shown as text or as json")
    specs = (spec if isinstance(spec, dict) else {"name": spec} for spec in specs_of(repair or [], "repair"))
    prepared = prepare_audit(
        None if model is None else Path(model), data=spec_of(data, "data"),
        architecture=spec_of(architecture, "model"),
        wish=wish_of(
            full=full, minutes=minutes, images=images, repairs=tuple(specs), trained_on_it=not other_training_data
        ),
        runs=runs, data_dir=data_dir, device=device, seed=seed, trust_code=trust_code,
    )  # fmt: skip
    for flag in prepared.flags:
        complain(f"warning: {flag}")
    _tell_study(prepared.study, new=prepared.new)
    found = conduct_audit(prepared, warn=_warn)
    if format_ is Format.json:
        echo_json(json.dumps(found.as_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        _print(found)
    for label, why in found.failed.items():
        complain(f"failed: {label}: {why}")
    if not found.failed and found.exit_code == 1:
        complain("no scanner has looked for a backdoor (see `Not looked at`)")
    raise typer.Exit(found.exit_code)


def _print(found: Audit) -> None:
    """The verdict, and where everything lies."""
    if found.verdict is not None:
        echo(found.verdict)
        echo()
    for path in found.files:
        echo(f"Ranking: {path}")
    echo(f"Report: {found.path / 'report.html'}")


def _tell_study(study: Path, *, new: bool) -> None:
    """What is asked, and why; on standard error, since it comes before the work."""
    from bascule.record.audited import notes_of

    notes = notes_of(study.read_text(encoding="utf-8"))
    if new and notes is not None:
        for reason in notes.reasons:
            typer.echo(f"bascule: proposed: {reason}", err=True)
    typer.echo(f"bascule: the study: {study}" + ("" if new else " (as it was)"), err=True)


def _warn(text: str) -> None:
    complain(f"warning: {text}")
