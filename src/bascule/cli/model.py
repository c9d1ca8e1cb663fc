"""Commands about one trained model: measure it, repair it, judge its training images, scan it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

import bascule.cli.completion as completion
from bascule.cli.options import (
    ATTACK_EXAMPLE,
    ArchitectureOption,
    DataDirOption,
    DataOption,
    DeviceOption,
    EvaluateOptions,
    Format,
    ImagesOption,
    ModelArgument,
    SeedOption,
    TrustCodeOption,
    component_of,
    spec_of,
    specs_of,
    writable_file,
    writable_folder,
)
from bascule.cli.output import complain, echo, echo_json
from bascule.core.errors import RequestError, placed
from bascule.core.text import count

if TYPE_CHECKING:
    from bascule.auditing.open import AuditedModel, OpenedModel
    from bascule.core.images import Images
    from bascule.record.evaluation import Evaluation

T = TypeVar("T", bound="OpenedModel")
_AIMED = "not measured: --trigger, --target"
"""What to say of a metric that needs a trigger, where there is none."""


def evaluate_model(name: str, given: EvaluateOptions) -> None:
    """Measure one model at both ends, and print its numbers."""
    import json

    from bascule.report.single import one_model

    if given.form not in (Format.text, Format.json):
        raise RequestError(f"--format {given.form.value}: one model is shown as text or as json")
    evaluation, data = measure_model(name, given)
    if given.form is Format.json:
        about = {"study": "", "row": name, "data": data, "vary": {}, "seeds": 1}
        echo_json(json.dumps({**about, **evaluation.as_dict()}, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return
    hints = {
        "robust_accuracy": f"not measured: --attack {ATTACK_EXAMPLE}",
        "certified_accuracy": "not measured: --certify",
        "asr": _AIMED,
        "triggered_accuracy": _AIMED,
    }
    echo(one_model(evaluation, f"test images of {data}", hints), nl=False)


def measure_model(name: str, given: EvaluateOptions) -> tuple[Evaluation, str]:
    """The numbers of one model at both ends, and what its data are called."""
    from dataclasses import replace

    from rich.console import Console

    from bascule.auditing.open import settings_for
    from bascule.core.catalog import name_of
    from bascule.evaluation.model import evaluate_model as evaluate
    from bascule.record.evaluation import check_measurable, check_target
    from bascule.running.console import console_progress

    audited = _open(
        name, given.data, given.model, given.seed, given.device, given.data_dir,
        trust_code=given.trust_code, max_test=given.max_images,
    )  # fmt: skip
    aim = _label(given.target, audited)
    settings = settings_for(
        audited, attack=specs_of(given.attack, "attack"), certify=specs_of(given.certify, "certify"),
        trigger=spec_of(given.trigger, "trigger"), target=aim, measure=given.measure,
        attack_precision=None if given.attack_precision is None else given.attack_precision.value,
    )  # fmt: skip
    there = {part: getattr(settings, part) not in (None, ()) for part in ("attack", "certify", "trigger", "target")}
    check_measurable(given.measure, there | {"target": there["target"] or settings.aims is not None})
    check_target(aim, given.measure, trigger=there["trigger"])
    with console_progress(Console(stderr=True), 1) as progress:
        progress.begin(name)
        images = audited.test.to(audited.device)
        evaluation = evaluate(
            audited.model, images, settings, seed=audited.seed, progress=progress, found=audited.found
        )
    return replace(evaluation, flags=(*audited.flags, *evaluation.flags)), name_of(audited.source)


def filter_(
    model: ModelArgument,
    data: DataOption = None,
    architecture: ArchitectureOption = None,
    with_: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="NAME",
            help="The filter: a name or a mapping.",
            autocompletion=completion.components("filter"),
        ),
    ] = "spectral-signatures",
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the ranking and the contact sheet.")
    ] = Path(),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    trust_code: TrustCodeOption = False,
) -> None:
    """Rank the training images of your data by suspicion, as a model trained on them sees them."""
    from bascule.auditing.filter import filter_images
    from bascule.auditing.open import open_with_training_images

    method = component_of("filter", with_)
    audited = _opened(open_with_training_images, model, data, architecture, seed, device, data_dir, trust_code)
    judged, files = filter_images(audited, method, writable_folder(output))
    train = audited.train
    echo(f"the model is {_accuracy(audited, train.to(audited.device))} that it is taken to be trained on")
    echo(f"{count(len(judged.score), 'image')} judged by {with_}: its rule would remove {int(judged.removed.sum())}.")
    for label, name in enumerate(train.classes):
        members = train.labels == label
        removed = int(judged.removed[members].sum())
        if removed:
            echo(f"  class {label} ({name}): {removed} of {int(members.sum())}")
    for note in judged.notes:
        echo(f"note: {note}")
    _print_flags(audited)
    for file in files:
        echo(file)


def scan(
    model: ModelArgument,
    data: DataOption = None,
    architecture: ArchitectureOption = None,
    with_: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="NAME",
            help="The scanner: a name or a mapping.",
            autocompletion=completion.components("scan"),
        ),
    ] = "neural-cleanse",
    images: ImagesOption = 500,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the pictures of recovered triggers.")
    ] = Path(),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    trust_code: TrustCodeOption = False,
) -> None:
    """Say whether a model is backdoored, towards which class, and how sure that is."""
    from bascule.auditing.scan import scan_model

    scanner = component_of("scan", with_)
    audited = _open(model, data, architecture, seed, device, data_dir, trust_code=trust_code)
    result, files = scan_model(audited, scanner, images, writable_folder(output))
    used, classes = audited.defender_images(images), audited.train.classes
    echo(f"the model is {_accuracy(audited, used)} of the test set, which the scanner uses")
    if result.suspects:
        named = ", ".join(f"{label} ({classes[label]})" for label in result.suspects)
        echo(f"backdoored: yes, towards class {named}")
    else:
        echo("backdoored: no class stands out")
    echo(f"anomaly index by class (suspicious above {result.threshold:g}):")
    for label, index in enumerate(result.anomaly.tolist()):
        success = result.details.get("success")
        reached = "" if success is None else f"   trigger moves {100 * float(success[label]):.0f} % of the images"
        echo(f"  {label} ({classes[label]}): {index:.2f}{reached}")
    _print_flags(audited)
    for file in files:
        echo(file)


def repair(
    model: ModelArgument,
    with_: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="NAME",
            help="The repair: a name or a mapping.",
            autocompletion=completion.components("repair"),
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="File for the repaired weights (safetensors).")],
    data: DataOption = None,
    architecture: ArchitectureOption = None,
    images: ImagesOption = 500,
    attack: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Attack for robust accuracy, e.g. '{name: pgd, eps: 0.1}'; by default the cell's.",
            autocompletion=completion.components("attack"),
        ),
    ] = None,
    trigger: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A trigger to measure ASR with, if it is known; by default the cell's.",
            autocompletion=completion.components("poison"),
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="The class that the trigger aims at, by number or name; by default the cell's.",
        ),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    trust_code: TrustCodeOption = False,
) -> None:
    """Repair a model, and say what that did to both of its ends."""
    from bascule.auditing.open import settings_for
    from bascule.auditing.repair import repair_model
    from bascule.report.single import both_ends

    method = component_of("repair", with_)
    audited = _open(model, data, architecture, seed, device, data_dir, trust_code=trust_code)
    attacks = specs_of([attack] if attack else [], "attack")
    aim = _label(target, audited)
    settings = settings_for(audited, attack=attacks, trigger=spec_of(trigger, "trigger"), target=aim)
    repaired, before, after = repair_model(audited, method, images, writable_file(output), settings)
    hints = {"robust-accuracy": "not measured: --attack", "asr": _AIMED}
    echo(both_ends(before, after, hints), nl=False)
    echo(", ".join(f"{name} {value:.4g}" for name, value in repaired.notes.items()))
    _print_flags(audited)
    echo(output)


def _label(text: str | None, audited: AuditedModel) -> int | None:
    """The class that `--target` names, by its number or else by its name."""
    from bascule.plan.labels import label_of

    if text is None or text.isdecimal():
        return text if text is None else int(text)
    with placed("target"):
        return label_of(text, audited.test.classes)


def _open(
    model: str,
    data: str | None,
    architecture: str | None,
    seed: int | None,
    device: str,
    data_dir: Path | None,
    *,
    trust_code: bool,
    max_test: int | None = None,
) -> AuditedModel:
    from bascule.auditing.open import open_model

    return _opened(open_model, model, data, architecture, seed, device, data_dir, trust_code, max_test=max_test)


def _opened(
    open_: Callable[..., T],
    model: str,
    data: str | None,
    architecture: str | None,
    seed: int | None,
    device: str,
    data_dir: Path | None,
    trust_code: bool,
    **more: int | None,
) -> T:
    """What `open_` makes of the options; what it flags is told."""
    from bascule.core.catalog import remember_named
    from bascule.data.contract import default_roots
    from bascule.running.run import pick_device

    opened = open_(
        model, data=spec_of(data, "data"), model=spec_of(architecture, "model"), device=pick_device(device),
        roots=default_roots(data_dir), seed=seed, trust_code=trust_code, **more,
    )  # fmt: skip
    remember_named()
    for flag in opened.flags:
        complain(f"warning: {flag}")
    return opened


def _print_flags(audited: OpenedModel) -> None:
    for flag in audited.flags:
        echo(f"! {flag}")


def _accuracy(audited: OpenedModel, images: Images) -> str:
    """How often the model is right on these images: weights read wrongly, or a model that expects other pixels, are
    seen here first."""
    return f"right on {100 * audited.accuracy(images):.1f} % of {count(len(images), 'image')}"
