"""The command `evaluate`, for a run or for one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import bascule.cli.completion as completion
from bascule.cli.model import evaluate_model
from bascule.cli.options import (
    ATTACK_EXAMPLE,
    ArchitectureOption,
    AttackPrecisionOption,
    CertifyOption,
    DataDirOption,
    DataOption,
    DevicesOption,
    EvaluateOptions,
    Format,
    JobsOption,
    MaxImagesOption,
    RunOrModelArgument,
    RunsOption,
    SeedOfModelOption,
    TargetOption,
    TriggerOption,
    TrustCodeOption,
)
from bascule.cli.study import evaluate_run
from bascule.core.errors import RequestError

if TYPE_CHECKING:
    from bascule.record.run import RunRecord


def evaluate(
    what: RunOrModelArgument,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="An attack (see: bascule ls attack). It is added to those of a run: a name alone has norm and eps of "
            f"the study. Of a model it takes the place of its cell's, with its eps: {ATTACK_EXAMPLE}. Repeatable.",
            autocompletion=completion.components("attack"),
        ),
    ] = None,
    certify: CertifyOption = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="A further metric (see: bascule ls measure). Repeatable.",
            autocompletion=completion.components("measure"),
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Output format; of a model, text or json.")] = Format.text,
    curve: Annotated[
        str | None, typer.Option(metavar="EPS", help="Run only: further radii for the security curve, e.g. 0.1,0.2.")
    ] = None,
    runs: RunsOption = Path("runs"),
    data: DataOption = None,
    architecture: ArchitectureOption = None,
    trigger: TriggerOption = None,
    target: TargetOption = None,
    max_images: MaxImagesOption = None,
    attack_precision: AttackPrecisionOption = None,
    seed: SeedOfModelOption = None,
    device: DevicesOption = "auto",
    jobs: JobsOption = None,
    data_dir: DataDirOption = None,
    trust_code: TrustCodeOption = False,
) -> None:
    """Measure one model at both ends, adversarial examples and backdoors; or ask more of the models of a run.

    Nothing is trained. Of a run the table is printed with what was added.
    """
    given = EvaluateOptions(
        attack=attack or (), certify=certify or (), measure=measure or (), form=format_, curve=curve, data=data,
        model=architecture, trigger=trigger, target=target, max_images=max_images,
        attack_precision=attack_precision, seed=seed, device=device, jobs=jobs, data_dir=data_dir,
        trust_code=trust_code,
    )  # fmt: skip
    record = run_or_model(what, runs, given)
    if record is None:
        why = f"{what} is one model: a curve is asked of a run; here give one `attack` a radius"
        given.refuse("curve", why=why)
        given.refuse("jobs", why=f"{what} is one model: the cells of a run are done side by side")
        evaluate_model(what, given)
    else:
        why = f"{record.path} is a run, which has its own; it is for one model"
        given.refuse("data", "model", "trigger", "target", "max_images", "attack_precision", "seed", why=why)
        evaluate_run(record, given)


_ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar", ".pkl")
"""How names of files of weights end, for messages."""


def run_or_model(what: str, runs: Path, given: EvaluateOptions) -> RunRecord | None:
    """The run that is meant, or None for one model.

    Raises:
        RequestError: It is neither.
    """
    from bascule.record.run import open_run

    try:
        return open_run(what, runs)
    except RequestError as error:
        from bascule.auditing.open import holds_model

        if holds_model(what):
            return None
        if not Path(what).exists() and (given.model or given.data or what.endswith(_ENDINGS)):
            raise RequestError(f"{what}: there is no such file of weights, nor a run of that name in {runs}") from None
        raise RequestError(
            f"{error} One model is given as a cell's folder (runs/.../cells/...), or as a file of weights with "
            "`model` and `data`."
        ) from None
