"""The command `check`: a gate for continuous integration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import bascule.cli.completion as completion
from bascule.cli.evaluate import run_or_model
from bascule.cli.model import measure_model
from bascule.cli.options import (
    ArchitectureOption,
    AttackOfModelOption,
    AttackPrecisionOption,
    CertifyOfModelOption,
    DataDirOption,
    DataOption,
    DeviceOption,
    EvaluateOptions,
    MaxImagesOption,
    RunOrModelArgument,
    RunsOption,
    SeedOfModelOption,
    TargetOption,
    TriggerOption,
    TrustCodeOption,
    writable_file,
)
from bascule.cli.output import echo
from bascule.core.errors import RequestError

if TYPE_CHECKING:
    from bascule.report.check.checked import Checked

_JunitOption = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Also write the results as JUnit XML; folders are made as needed."),
]
_JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the results as JSON, likewise.")
]
FAILED = 3
"""Exit code where a condition does not hold."""


def check(
    what: RunOrModelArgument,
    conditions: Annotated[
        list[str],
        typer.Argument(
            metavar="CONDITION",
            help="In quotes: a metric of the table, METRIC.low or METRIC.high (the ends of its 95 % interval), one of "
            "< <= > >=, and a number, e.g. 'asr.high < 5 %' or 'asr.high < 0.05'.",
            autocompletion=completion.metrics,
        ),
    ],
    row: Annotated[
        list[str] | None,
        typer.Option(
            "--row",
            metavar="NAME",
            help="Run only: a row of its table to check; by default all. Repeatable.",
            autocompletion=completion.rows,
        ),
    ] = None,
    junit: _JunitOption = None,
    json_: _JsonOption = None,
    runs: RunsOption = Path("runs"),
    attack: AttackOfModelOption = None,
    certify: CertifyOfModelOption = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="Model only: a metric besides those of the conditions, to be written with --json. Repeatable.",
            autocompletion=completion.components("measure"),
        ),
    ] = None,
    data: DataOption = None,
    architecture: ArchitectureOption = None,
    trigger: TriggerOption = None,
    target: TargetOption = None,
    max_images: MaxImagesOption = None,
    attack_precision: AttackPrecisionOption = None,
    seed: SeedOfModelOption = None,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    trust_code: TrustCodeOption = False,
) -> None:
    """Check conditions on the numbers of a run, or of one model that is measured now: a gate for CI.

    Exit code 0 when all hold, 3 when one does not, 2 when the request is wrong.
    """
    given = EvaluateOptions(
        attack=attack or (), certify=certify or (), measure=measure or (), data=data, model=architecture,
        trigger=trigger, target=target, max_images=max_images, attack_precision=attack_precision, seed=seed,
        device=device, data_dir=data_dir, trust_code=trust_code,
    )  # fmt: skip
    files = {name: writable_file(path, f"--{name}") for name, path in (("junit", junit), ("json", json_)) if path}
    checked = _checked(what, conditions, row or [], runs, given)
    _write(checked, files)
    echo(checked)
    if not checked.holds:
        raise typer.Exit(FAILED)


def _checked(what: str, texts: list[str], row: list[str], runs: Path, given: EvaluateOptions) -> Checked:
    from dataclasses import replace

    from bascule.record.rows import read_rows
    from bascule.report.check.checked import check_evaluation, check_rows, metrics_wanted, parse_conditions

    conditions = parse_conditions(texts)  # before a model is measured
    record = run_or_model(what, runs, given)
    if record is not None:
        why = f"{record.path} is a run, which has its own (bascule evaluate asks more of its models); it is for a model"
        given.refuse(
            "attack", "certify", "measure", "data", "model", "trigger", "target", "max_images", "attack_precision",
            "seed", why=why,
        )  # fmt: skip
        return check_rows(read_rows(record), conditions, of=what, row=row)
    if row:
        raise RequestError(f"{what} is one model and has no rows", place=("row",))
    wanted = dict.fromkeys((*metrics_wanted(conditions), *given.measure))
    evaluation, _ = measure_model(what, replace(given, measure=tuple(wanted)))
    return check_evaluation(evaluation, conditions, of=what)


def _write(checked: Checked, files: dict[str, Path]) -> None:
    import json
    from datetime import UTC, datetime
    from functools import partial

    from bascule.core.files import write_atomically
    from bascule.core.text import json_text
    from bascule.report.check.junit import junit_xml

    for name, path in files.items():
        if name == "junit":
            text = junit_xml(checked, when=datetime.now(UTC))
        else:
            text = json_text(json.dumps(checked.as_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        content = text.encode("utf-8", errors="backslashreplace")
        write_atomically(path, partial(Path.write_bytes, data=content))
