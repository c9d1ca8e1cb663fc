"""The options that several commands share, what their texts mean, and the names of options in messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import bascule.cli.completion as completion
from bascule.core.errors import RequestError, placed
from bascule.core.text import quote


class Engine(StrEnum):
    """Where cells run."""

    local = "local"
    ray = "ray"


class Format(StrEnum):
    """Formats of the table."""

    text = "text"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    latex = "latex"


class AttackPrecision(StrEnum):
    """Precisions of the attacks' searches."""

    float32 = "float32"
    mixed = "mixed"


class FigureForm(StrEnum):
    """Formats of figures."""

    svg = "svg"
    png = "png"
    pdf = "pdf"


ATTACK_EXAMPLE = "'{name: pgd, eps: 8/255}'"

# --- arguments and options -------------------------------------------------------------------------------------------

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A built-in study (see: bascule ls studies) or a .yaml file.",
        autocompletion=completion.studies,
    ),
]
SeveralArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN", help="Run folders, or names of studies that were run.", autocompletion=completion.runs
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The folder of a cell (runs/.../cells/...), or a file of weights.",
        autocompletion=completion.models,
    ),
]
RunOrModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|MODEL",
        help="A run: its folder, or the name of a study that was run. Or one model: a cell (the folder of one model "
        "of a run, runs/.../cells/...), or a file of weights.",
        autocompletion=completion.runs_and_models,
    ),
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="FOLDER", help="Folder that holds the runs.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting in every row, e.g. train.epochs=3. Repeatable.",
        autocompletion=completion.settings,
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, metavar="N", help="Models of each row, with seeds 0, 1, ...; by default the study's seeds."
    ),
]
# Named, as --device below: typer 0.27 takes a metavar that is the name in capitals for the option itself.
ScaleOption = Annotated[
    str | None,
    typer.Option(
        "--scale",
        metavar="SCALE",
        help="Scale of the study, e.g. fast or paper; by default its first.",
        autocompletion=completion.scales,
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        help="Searched first for data; then $BASCULE_DATA, ./data, ~/.cache/bascule, beside the study file, here.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="Data of one model (see: bascule ls data), e.g. mnist or '{name: folder, path: ...}'; by default its "
        "cell's.",
        autocompletion=completion.components("data"),
    ),
]
ArchitectureOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NETWORK",
        help="Architecture of a file of weights: a name (see: bascule ls models), a mapping, module:factory.",
        autocompletion=completion.components("models"),
    ),
]
AttackOfModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        metavar="NAME",
        help=f"Model only: an attack with its eps, e.g. {ATTACK_EXAMPLE}; by default its cell's. Repeatable.",
        autocompletion=completion.components("attack"),
    ),
]
CertifyOfModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--certify",
        metavar="NAME",
        help="Model only: a certified bound, written like an attack. Repeatable.",
        autocompletion=completion.components("certify"),
    ),
]
CertifyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--certify",
        metavar="NAME",
        help="Certifier, written like an attack. Repeatable.",
        autocompletion=completion.components("certify"),
    ),
]
TriggerOption = Annotated[
    str | None,
    typer.Option(
        "--trigger",
        metavar="NAME",
        help="Model only: a trigger (see: bascule ls poison) to measure ASR with; by default its cell's.",
        autocompletion=completion.components("poison"),
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="CLASS",
        help="Model only: the class that the trigger aims at, by number or name; by default its cell's.",
    ),
]
MaxImagesOption = Annotated[
    int | None,
    typer.Option(
        "--max-images", min=1, metavar="N", help="Model only: a random part of the test images; by default all."
    ),
]
AttackPrecisionOption = Annotated[
    AttackPrecision | None,
    typer.Option(
        "--attack-precision",
        help="Model only: of the attacks' searches. mixed: gradients in bfloat16, success in float32; by default "
        "its cell's, or float32.",
    ),
]
SeedOfModelOption = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, metavar="N", help="Model only: of everything that is drawn; by default its cell's, or 0."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, metavar="N", help="Of everything that is drawn.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:N.",
        autocompletion=completion.devices,
    ),
]
DevicesOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:N; several, as cuda:0,1, do each cell together, in a process each.",
        autocompletion=completion.devices,
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Models that are worked on at the same time, each in a process of its own with one thread (on CUDA they "
        "share the device); by default one after another in this process.",
    ),
]
ResourcesOption = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNTS",
        help="With Ray, what each cell is given, e.g. gpu=0.2,cpu=1 or cpu=4,memory=8GiB; by default one core, and one "
        "GPU where there are some.",
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Only the cells of part I of N (I from 1), beside processes that do the other parts: a job array.",
    ),
]
TrustCodeOption = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Import code that the record names and you do not (own.py:Name), which then may do anything.",
    ),
]
ImagesOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="How many test images the defender uses, as clean images.")
]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What `bascule evaluate` is asked, in the texts that were given; what was not given is None or empty."""

    attack: Sequence[str] = ()
    certify: Sequence[str] = ()
    measure: Sequence[str] = ()
    form: Format = Format.text
    curve: str | None = None
    data: str | None = None
    model: str | None = None
    trigger: str | None = None
    target: str | None = None
    max_images: int | None = None
    attack_precision: AttackPrecision | None = None
    seed: int | None = None
    device: str = "auto"
    jobs: int | None = None
    data_dir: Path | None = None
    trust_code: bool = False

    def refuse(self, *names: str, why: str) -> None:
        """These do not apply and must not be given.

        Raises:
            RequestError: One of them is.
        """
        for name in names:
            if getattr(self, name) not in (None, ()):
                raise RequestError(why, place=(name,))


# --- what texts mean -------------------------------------------------------------------------------------------------


def spec_of(text: str | None, place: str) -> Any:
    """A name or a YAML mapping as a value, None for nothing; errors are about `place`."""
    from bascule.plan.document import parse_value

    with placed(place):
        return None if text is None else parse_value(text)


def specs_of(texts: Sequence[str], place: str) -> list[Any]:
    """`spec_of` each."""
    return [spec_of(text, place) for text in texts]


def amounts_of(text: str | None) -> dict[str, str] | None:
    """The names and amounts of `NAME=AMOUNT,...`.

    Raises:
        RequestError: It is not written like that, or names something twice.
    """
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    amounts = {name.strip(): amount.strip() for name, _, amount in pairs}
    if len(amounts) < len(pairs) or not all(name and amount for name, amount in amounts.items()):
        problem = f"expected amounts by name, each once, such as gpu=0.2,cpu=1; got {text!r}"
        raise RequestError(problem, place=("resources",))
    return amounts


def part_of(text: str | None) -> tuple[int, int] | None:
    """The numbers of I/N.

    Raises:
        RequestError: It is something else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if match is None:
        raise RequestError(f"expected I/N with I from 1 to N, for example 2/4; got {quote(text)}", place=("part",))
    return int(match[1]), int(match[2])


def component_of(room: str, text: str) -> Any:
    """The component that `--with` names: a name or a YAML mapping."""
    from bascule.core.catalog import build

    spec = spec_of(text, "with")
    with placed("with"):
        return build(room, spec)


def writable_file(path: Path, option: str = "--output") -> Path:
    """The FILE of an option, which can be written: what it leads to, where it is a link.

    Raises:
        RequestError: A folder, a device or a pipe, or a place where nothing can be written.
    """
    from bascule.core.files import check_writable

    problem = f"{option} {path}"
    try:
        target = path.resolve() if path.is_symlink() else path  # what a link leads to is written, and the link stays
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise RequestError(f"{problem}: {error}; give the name of a file") from error
    if path.is_dir():
        raise RequestError(f"{problem} is a folder; give the name of a file in it")
    streams = any(path.is_relative_to(place) for place in ("/proc", "/dev/fd", "/dev/stdout", "/dev/stderr"))
    if streams or (target.exists() and not target.is_file()):
        raise RequestError(f"{problem} is a device or a pipe, which cannot be replaced; give the name of a file")
    check_writable(target.parent)
    return target


def writable_folder(path: Path) -> Path:
    """A folder that can be written to, or made; what is written makes it."""
    from bascule.core.files import check_writable

    check_writable(path)
    return path


# --- names of options in messages ------------------------------------------------------------------------------------

_OPTIONS = {
    "capture_steps": "--capture",
    "compile_passes": "--compile",
    "place": "--from URL",
    "roots": "--data-dir",
}
"""Options that the library knows under another name. Any other option has the name of the argument that it sets."""


def in_options(error: RequestError, options: Collection[str]) -> RequestError:
    """A wrong request in the words of a command: options where the library names an argument.

    Args:
        error: It names arguments as its place, and between backticks in its text.
        options: Those of the command, as `--name`. What is none of them stays as it is.
    """

    def named(argument: str) -> str | None:
        option = _OPTIONS.get(argument, f"--{argument.replace('_', '-')}")
        return option if option.partition(" ")[0] in options else None

    first, rest = error.place[:1], error.place[1:]
    problem = re.sub(r"`(\w+)`", lambda quoted: named(quoted[1]) or quoted[0], error.problem)
    return RequestError(problem, place=(*(named(argument) or argument for argument in first), *rest))
