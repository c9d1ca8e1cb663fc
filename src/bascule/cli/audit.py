"""The command `audit`: everything there is to say of one model, or of a data set alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import bascule.cli.completion as completion
from bascule.cli.options import (
    ArchitectureOption,
    DataDirOption,
    DeviceOption,
    RunsOption,
    TrustCodeOption,
    spec_of,
    specs_of,
    writable_folder,
)
from bascule.cli.output import complain, echo
from bascule.core.errors import RequestError

if TYPE_CHECKING:
    from bascule.auditing.conduct import Audit
    from bascule.auditing.propose import Wish

SUSPICIOUS = 3
"""Exit code where there is reason to suspect a backdoor."""


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
    typer.Option("--full", help="AutoAttack, every scanner and filter with its own settings: hours, not minutes."),
]
_MinutesOption = Annotated[
    float,
    typer.Option(
        "--minutes", min=0.001, max=10_000, metavar="N", help="About what the light set may take on an idle machine."
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
    minutes: _MinutesOption = 6.0,
    images: _ImagesOption = None,
    repair: _RepairOption = None,
    other_training_data: _OtherDataOption = False,
    runs: RunsOption = Path("runs"),
    seed: _SeedOption = None,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    trust_code: TrustCodeOption = False,
) -> None:
    """Look at one model from both sides and say what was found, and what was not looked at.

    Proposes a study, runs it, and writes its verdict, record and page into a run folder; the same command again
    continues. Exit code 3: scanners agree on a backdoor.
    """
    from bascule.auditing.conduct import prepare
    from bascule.auditing.images import prepare_images
    from bascule.auditing.propose import Wish
    from bascule.core.catalog import remember_named
    from bascule.data.contract import default_roots
    from bascule.running.run import pick_device

    wish = Wish(
        full=full, minutes=minutes, images=images, repairs=tuple(_repairs(repair or [])),
        trained_on_it=not other_training_data,
    )  # fmt: skip
    if model is None:
        _check_images_alone(data, wish)
    asked: dict[str, Any] = {
        "data": spec_of(data, "data"), "architecture": spec_of(architecture, "model"), "wish": wish,
        "runs": writable_folder(runs), "roots": default_roots(data_dir), "device": pick_device(device),
    }  # fmt: skip
    if model is None:
        prepared = prepare_images(**asked, seed=seed or 0)
    else:
        prepared = prepare(Path(model), **asked, seed=seed, trust_code=trust_code)
        remember_named()
    for flag in prepared.flags:
        complain(f"warning: {flag}")
    _run(prepared)


def _repairs(texts: list[str]) -> list[dict[str, object]]:
    """What `--repair` names, each as a mapping that can be built."""
    from bascule.core.catalog import build
    from bascule.core.errors import placed

    specs = [spec if isinstance(spec, dict) else {"name": spec} for spec in specs_of(texts, "repair")]
    for spec in specs:
        with placed("repair"):
            build("repair", spec)
    return specs


def _run(prepared: Audit) -> None:
    """Run the study, and print the verdict and where everything lies."""
    from bascule.auditing.conduct import judge
    from bascule.report.audited.facts import facts_of
    from bascule.report.audited.verdict import verdict_of
    from bascule.report.page.page import write_page
    from bascule.report.view import view_of

    _tell_study(prepared.study, new=prepared.new)
    done, files = judge(prepared, changed=lambda: None, warn=_warn)
    facts = facts_of(view_of([prepared.record]).runs[0])
    page = write_page([prepared.record], prepared.record.path / "report.html")
    verdict = None if facts is None else verdict_of(facts)
    if verdict is not None:
        echo(verdict)
        echo()
    for path in files:
        echo(f"Ranking: {path}")
    echo(f"Report: {page}")
    for failure in done.failures:
        complain(f"failed: {failure.label}: {failure.message}")
    if done.failures:
        raise typer.Exit(1)
    if verdict is not None and verdict.suspicious:
        raise typer.Exit(SUSPICIOUS)
    if facts is not None and facts.about == "model" and not facts.scans:
        complain("no scanner has looked for a backdoor (see `Not looked at`)")
        raise typer.Exit(1)


def _tell_study(study: Path, *, new: bool) -> None:
    """What is asked, and why; on standard error, since it comes before the work."""
    from bascule.record.audited import notes_of

    notes = notes_of(study.read_text(encoding="utf-8"))
    if new and notes is not None:
        for reason in notes.reasons:
            typer.echo(f"bascule: proposed: {reason}", err=True)
    typer.echo(f"bascule: the study: {study}" + ("" if new else " (as it was)"), err=True)


def _check_images_alone(data: str | None, wish: Wish) -> None:
    if data is None:
        raise RequestError("give a model, or `data` alone, whose images are then ranked")
    if wish.repairs:
        raise RequestError("there is no model to repair; give one, or leave this out", place=("repair",))


def _warn(text: str) -> None:
    complain(f"warning: {text}")
