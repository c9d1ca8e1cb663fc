"""The command line. Thin: every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bascule.core.errors import Interrupted, RequestError
from bascule.core.host import settle

if TYPE_CHECKING:
    from bascule.audit.own import Own
    from bascule.plan.overrides import Override
    from bascule.plan.plan import Plan, Row
    from bascule.record.run import RunRecord
    from bascule.report.tables.tables import More
    from bascule.run.run import Ran

app = typer.Typer(
    name="bascule",
    help="Measure both ends of an image classifier's security in one run: adversarial examples and backdoors.",
    epilog="Start with: bascule run digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


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


class FigureForm(StrEnum):
    """Formats of figures."""

    svg = "svg"
    png = "png"
    pdf = "pdf"


ATTACK_EXAMPLE = "'{name: pgd, eps: 8/255}'"

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="A built-in study (see: bascule ls studies) or a .yaml file.")
]
SeveralArgument = Annotated[
    list[str], typer.Argument(metavar="RUN", help="Run folders, or names of studies that were run.")
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="FOLDER", help="Folder that holds the runs.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting in every row, e.g. train.epochs=3. Repeatable."),
]
SeedsOption = Annotated[
    int | None, typer.Option(min=1, max=1000, metavar="N", help="Number of seeds instead of the study's.")
]
ScaleOption = Annotated[
    str | None, typer.Option(metavar="SCALE", help="Scale of the study, e.g. fast or paper; by default its first.")
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        help="Folder searched first for data; then $BASCULE_DATA, ./data, ~/.cache/bascule and here.",
    ),
]


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


@app.command()
def run(
    study: StudyArgument,
    runs: RunsOption = Path("runs"),
    set_: SetOption = None,
    scale: ScaleOption = None,
    seeds: SeedsOption = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
    engine: Annotated[Engine, typer.Option(help="Run cells here, or on a Ray cluster.")] = Engine.local,
    data_dir: DataOption = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the passes of training, where the objective allows it.")
    ] = False,
    report_: Annotated[
        bool, typer.Option("--report", help="Keep report.html in the run folder current, to be watched in a browser.")
    ] = False,
) -> None:
    """Train, attack from both sides, and print the table. The same command again continues where it stopped."""
    plan = _plan(study, set_, scale, seeds, data_dir)
    from bascule.data import default_roots
    from bascule.record.run import RunRecord
    from bascule.run.run import pick_device, run_plan

    roots = default_roots(data_dir)
    where = pick_device(device)
    record = RunRecord(_folder(runs / plan.folder))
    with _kept_current(record, wanted=report_) as changed:
        done = run_plan(
            plan, record, device=where, roots=roots, engine=engine.value, compile_passes=compile_, changed=changed
        )
    _print_table([record], Format.text)
    cells = len(plan.cells())
    typer.echo(f"\n{record.path}: {cells} cells, {cells - done.cells} of them done before.")
    typer.echo(f"Report: {_page(record)}" if report_ else f"Report: bascule report {record.path}")
    _end(done)


@app.command()
def evaluate(
    what: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run; or one model: a cell's folder, or a file of weights.")
    ],
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Attack to add to a run: a name (norm and eps of the study), or a mapping. Of a model: a mapping, "
            f"e.g. {ATTACK_EXAMPLE}; by default its cell's. Repeatable.",
        ),
    ] = None,
    certify: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Certifier, written like an attack. Repeatable.")
    ] = None,
    measure: Annotated[list[str] | None, typer.Option(metavar="METRIC", help="A further metric. Repeatable.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="Output format; of a model, text or json.")] = Format.text,
    curve: Annotated[
        str | None, typer.Option(metavar="EPS", help="Run only: further radii for the security curve, e.g. 0.1,0.2.")
    ] = None,
    runs: RunsOption = Path("runs"),
    data: OwnDataOption = None,
    architecture: OwnModelOption = None,
    trigger: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Model only: a trigger to measure ASR with; by default its cell's."),
    ] = None,
    target: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Model only: the class that the trigger aims at; by default its cell's."),
    ] = None,
    max_images: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Model only: a random part of the test images; by default all."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Model only: of everything that is drawn (0).")
    ] = None,
    device: DeviceOption = "auto",
    data_dir: DataOption = None,
) -> None:
    """Measure one model at both ends; or ask more of the trained models of a run. Nothing is trained."""
    from bascule.record.run import open_run

    parts = {"attack": attack or [], "certify": certify or [], "measure": measure or []}
    of_model = {
        "--data": data, "--model": architecture, "--trigger": trigger, "--target": target, "--max-images": max_images,
        "--seed": seed,
    }  # fmt: skip
    try:
        record = open_run(what, runs)
    except RequestError as error:
        from bascule.audit.own import holds_model

        if not holds_model(what):
            raise RequestError(
                f"{error} One model is given as a cell's folder (runs/.../cells/...), or as a file of weights with "
                "--model and --data."
            ) from None
        _refuse({"--curve": curve}, f"{what} is one model: a curve is asked of a run; here give one --attack a radius")
        mine = _own(what, data, architecture, seed or 0, device, data_dir, max_test=max_images)
        _evaluate_one(what, mine, parts, trigger, target, format_)
        return
    _refuse(of_model, f"{record.path} is a run, which has its own; it is for one model")
    parts["curve"] = [curve] if curve else []
    _evaluate_run(record, parts, format_, device, data_dir)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Options that do not apply must not be given."""
    for name, given in options.items():
        if given is not None:
            raise RequestError(f"{name}: {why}")


def _evaluate_run(
    record: RunRecord, asked: Mapping[str, Sequence[str]], form: Format, device: str, data_dir: Path | None
) -> None:
    from bascule.data import default_roots
    from bascule.run.extend import more_asked
    from bascule.run.run import pick_device, run_plan

    if not any(asked.values()):
        raise RequestError("nothing to evaluate: give --attack, --certify, --curve or --measure")
    roots = default_roots(data_dir)
    plan = more_asked(record, _additions(asked), roots)
    done = run_plan(plan, record, device=pick_device(device), roots=roots, train=False)
    _print_table([record], form)
    _end(done)


def _additions(asked: Mapping[str, Sequence[str]]) -> list[Override]:
    """What options add to the lists of a study that are called as they are."""
    from bascule.core.errors import placed
    from bascule.plan.document import parse_value
    from bascule.plan.overrides import Override

    additions = []
    for key, texts in asked.items():
        for text in texts:
            with placed(f"--{key}"):
                value = parse_value(f"[{text}]" if key == "curve" else text)
            additions.append(Override(path=key, value=value, origin=f"--{key}", adds=True))
    return additions


def _evaluate_one(
    name: str, mine: Own, parts: Mapping[str, Sequence[str]], trigger: str | None, target: int | None, form: Format
) -> None:
    import json

    from rich.console import Console

    from bascule.audit import own
    from bascule.core.catalog import name_of
    from bascule.evaluate.single import ends_of
    from bascule.report.single import one_model
    from bascule.run.console import console_progress

    if form not in (Format.text, Format.json):
        raise RequestError(f"--format {form.value}: one model is shown as text or as json")
    asked = own.asked_of(mine, **parts, trigger=trigger, target=target)
    with console_progress(Console(stderr=True), 1) as progress:
        progress.begin(name)
        found = ends_of(mine.model, mine.test.to(mine.device), asked, progress=progress)
    data = name_of(mine.source)
    if form is Format.json:
        about = {"study": "", "row": name, "data": data, "vary": {}, "seeds": 1}
        typer.echo(json.dumps({**about, **found.as_dict()}, indent=1, ensure_ascii=False, allow_nan=False))
        return
    aimed = "not measured: --trigger, --target"
    hints = {
        "robust_accuracy": f"not measured: --attack {ATTACK_EXAMPLE}",
        "certified_accuracy": "not measured: --certify",
        "asr": aimed,
        "triggered_accuracy": aimed,
    }
    typer.echo(one_model(found, f"test images of {data}", hints), nl=False)


@app.command()
def table(
    run: SeveralArgument,
    runs: RunsOption = Path("runs"),
    format_: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    against: Annotated[
        str | None, typer.Option(metavar="ROW", help="Compare every row with this one, paired by seed and image.")
    ] = None,
    before: Annotated[
        bool, typer.Option("--before", help="Compare every repaired or filtered row with the same models before.")
    ] = False,
    pareto: Annotated[bool, typer.Option("--pareto", help="Say which rows another one beats at both ends.")] = False,
    by_class: Annotated[bool, typer.Option("--by-class", help="Every metric by true class.")] = False,
) -> None:
    """Print the joint table of a run, finished or not; of several runs, one table with the rows of all."""
    from bascule.report.runs import open_runs
    from bascule.report.tables.tables import More

    _print_table(open_runs(run, runs), format_, More(against=against, before=before, pareto=pareto, by_class=by_class))


@app.command()
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
    typer.echo(write_page(records, _file(_output(records, output, "report.html"))))


@app.command()
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
    folder = _folder(_output(records, output, "export"))
    forms: list[Any] = [form.value for form in format_ or FigureForm]
    for path in write(records, folder, forms=forms):
        typer.echo(path)


def _output(records: Sequence[RunRecord], given: Path | None, name: str) -> Path:
    """Where to write what is made of these runs; several have no folder of their own."""
    if given is None and len(records) > 1:
        raise RequestError(f"{len(records)} runs have no folder in common: say where to write, with --output {name}")
    return given or records[0].path / name


def _file(path: Path) -> Path:
    """A file that can be written."""
    from bascule.core.files import check_writable

    if path.is_dir():
        raise RequestError(f"--output {path} is a folder; give the name of a file in it")
    check_writable(path.parent)
    return path


def _folder(path: Path) -> Path:
    """A folder that can be written to."""
    from bascule.core.files import check_writable

    check_writable(path)
    return path


@app.command()
def ls(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="One kind of component, or studies.")] = None,
) -> None:
    """List kinds of components, the components of one kind, or the built-in studies."""
    from bascule.core import catalog
    from bascule.core.errors import unknown
    from bascule.plan.document import built_in_names, read_study

    if kind == "studies":
        lines = [(name, str(read_study(name).content.get("title", ""))) for name in built_in_names()]
    elif kind is not None:
        if kind not in catalog.ROOMS:
            raise RequestError(unknown("kind", kind, [*catalog.ROOMS, "studies"]))
        lines = [(f"{kind}/{name}", catalog.documentation(kind, name).summary) for name in catalog.names(kind)]
    else:
        lines = [(room, f"{about}: {', '.join(catalog.names(room))}") for room, about in catalog.ROOMS.items()]
        lines.append(("studies", f"built-in studies: {', '.join(built_in_names())}"))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        typer.echo(f"{name:<{width}}  {text}")


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="KIND/NAME", help="For example attack/pgd, studies/digits or own.py:Class.")
    ],
) -> None:
    """Describe a component with all its settings, or print a built-in study."""
    from bascule.core import catalog
    from bascule.plan.document import built_in_names, read_study

    kind, slash, rest = name.partition("/")
    if ":" in name and kind not in catalog.ROOMS:
        kind, slash, rest = str(getattr(catalog.load("models", name), "room", None)), "/", name
        if kind not in catalog.ROOMS:
            raise RequestError(f"{name!r} is no component, so that it has no settings to show")
    if not slash:
        if name in catalog.ROOMS or name == "studies":
            ls(name)
            return
        meant = [f"{room}/{name}" for room in catalog.ROOMS if name in catalog.names(room)]
        meant += [f"studies/{name}"] if name in built_in_names() else []
        guess = f" Did you mean {' or '.join(meant)}?" if meant else ""
        raise RequestError(
            f"{name!r}: expected KIND/NAME, for example attack/pgd.{guess} Kinds: {', '.join(catalog.ROOMS)}, studies"
        )
    if kind == "studies":
        typer.echo(read_study(rest).text, nl=False)
        return
    found = catalog.documentation(kind, rest)
    typer.echo(f"{name}\n\n{found.text}\n\nsettings:" + ("" if found.fields else " none"))
    for field in found.fields:
        default = "required" if field.shown is None else f"default {field.shown}"
        typer.echo(f"  {field.name} ({default}): {field.allowed}\n{indent(field.text, 6 * ' ')}")


OwnArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The folder of a cell (runs/.../cells/...), or a file of weights.")
]
OwnDataOption = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="SOURCE", help="A source, e.g. mnist or '{name: folder, path: ...}'; by default the cell's."
    ),
]
OwnModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NETWORK", help="Architecture of a file of weights: a name, a mapping, module:factory."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, metavar="N", help="Of everything that is drawn.")]
DeviceOption = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
ImagesOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="How many test images the defender uses, as clean images.")
]


@app.command("filter")
def filter_(
    model: OwnArgument,
    data: OwnDataOption = None,
    architecture: OwnModelOption = None,
    with_: Annotated[
        str, typer.Option("--with", metavar="NAME", help="The filter: a name or a mapping.")
    ] = "spectral-signatures",
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the ranking and the contact sheet.")
    ] = Path(),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    data_dir: DataOption = None,
) -> None:
    """Rank the training images of your data by suspicion, as a model trained on them sees them."""
    from bascule.audit import own

    judge = own.part_of("filter", with_, "--with")
    mine = _own(model, data, architecture, seed, device, data_dir)
    found, files = own.ranked(mine, judge, _folder(output))
    removed = int(found.removed.sum())
    typer.echo(f"the model is {own.accuracy(mine, mine.train.to(mine.device))} that it is taken to be trained on")
    typer.echo(f"{len(found.score)} images judged by {with_}: its rule would remove {removed}.")
    for label, name in enumerate(mine.train.classes):
        members = mine.train.labels == label
        count = int(found.removed[members].sum())
        if count:
            typer.echo(f"  class {label} ({name}): {count} of {int(members.sum())}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    for file in files:
        typer.echo(file)


@app.command()
def scan(
    model: OwnArgument,
    data: OwnDataOption = None,
    architecture: OwnModelOption = None,
    with_: Annotated[
        str, typer.Option("--with", metavar="NAME", help="The scanner: a name or a mapping.")
    ] = "neural-cleanse",
    images: ImagesOption = 500,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the pictures of recovered triggers.")
    ] = Path(),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    data_dir: DataOption = None,
) -> None:
    """Say whether a model is backdoored, towards which class, and how sure that is."""
    from bascule.audit import own

    scanner = own.part_of("scan", with_, "--with")
    mine = _own(model, data, architecture, seed, device, data_dir)
    found, files = own.scan(mine, scanner, images, _folder(output))
    classes = mine.train.classes
    typer.echo(f"the model is {own.accuracy(mine, mine.defenders(images))} of the test set, which the scanner uses")
    if found.suspects:
        named = ", ".join(f"{label} ({classes[label]})" for label in found.suspects)
        typer.echo(f"backdoored: yes, towards class {named}")
    else:
        typer.echo("backdoored: no class stands out")
    typer.echo(f"anomaly index by class (suspicious above {found.threshold:g}):")
    for label, index in enumerate(found.anomaly.tolist()):
        success = found.details.get("success")
        reached = "" if success is None else f"   trigger moves {100 * float(success[label]):.0f} % of the images"
        typer.echo(f"  {label} ({classes[label]}): {index:.2f}{reached}")
    for file in files:
        typer.echo(file)


@app.command()
def repair(
    model: OwnArgument,
    with_: Annotated[str, typer.Option("--with", metavar="NAME", help="The repair: a name or a mapping.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="File for the repaired weights (safetensors).")],
    data: OwnDataOption = None,
    architecture: OwnModelOption = None,
    images: ImagesOption = 500,
    attack: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Attack for robust accuracy, e.g. '{name: pgd, eps: 0.1}'; by default the cell's."
        ),
    ] = None,
    trigger: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A trigger to measure ASR with, if it is known; by default the cell's."),
    ] = None,
    target: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The class that the trigger aims at; by default the cell's.")
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    data_dir: DataOption = None,
) -> None:
    """Repair a model, and say what that did to both of its ends."""
    from bascule.audit import own
    from bascule.report.single import both_ends

    method = own.part_of("repair", with_, "--with")
    mine = _own(model, data, architecture, seed, device, data_dir)
    asked = own.asked_of(mine, attack=[attack] if attack else [], trigger=trigger, target=target)
    found, before, after = own.repair(
        mine,
        method,
        images,
        _file(output),
        asked,
    )
    hints = {"robust-accuracy": "not measured: --attack", "asr": "not measured: --trigger, --target"}
    typer.echo(both_ends(before, after, hints), nl=False)
    typer.echo(", ".join(f"{name} {value:.4g}" for name, value in found.notes.items()))
    typer.echo(output)


def _own(
    model: str,
    data: str | None,
    architecture: str | None,
    seed: int,
    device: str,
    data_dir: Path | None,
    *,
    max_test: int | None = None,
) -> Own:
    from bascule.audit.own import open_own
    from bascule.data import default_roots
    from bascule.run.run import pick_device

    roots = default_roots(data_dir)
    where = pick_device(device)
    return open_own(model, data=data, model=architecture, device=where, roots=roots, seed=seed, max_test=max_test)


@app.command()
def validate(
    study: StudyArgument,
    set_: SetOption = None,
    scale: ScaleOption = None,
    seeds: SeedsOption = None,
    data_dir: DataOption = None,
) -> None:
    """Check a study completely without running it, and say what it would do."""
    plan = _plan(study, set_, scale, seeds, data_dir)
    cells = plan.cells()
    links = sum(len(cell.links) for cell in cells)
    typer.echo(
        f"{study}: good. {len(plan.rows)} rows, {len(cells)} models to train (twins included), {links} evaluations."
    )
    for row in plan.rows:
        settings = "".join(f" · {path} {value}" for path, value in row.vary.items())
        counts = ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in _models_of(row) if n)
        typer.echo(f"  {row.name}{settings}: {counts}")


def _models_of(row: Row) -> list[tuple[int, str]]:
    return [(len(row.cells), "seed"), (len(row.twins), "twin")]


@data_app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A source of data, e.g. mnist or cifar10.")],
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
    from bascule.data import Source, cache_folder
    from bascule.data.download import fetch

    source: type[Source] = catalog.load("data", name)
    remotes = getattr(source, "remote", None)
    if remotes is None:
        known = [other for other in catalog.names("data") if catalog.load("data", other).remote]
        raise RequestError(f"data/{name} reads files that you have; {' and '.join(known)} can be downloaded")
    if not remotes:
        typer.echo(f"data/{name} needs no files")
        return
    folder = (data_dir or cache_folder()).expanduser()
    for remote in remotes:
        fetch(remote, folder, place=place, report=typer.echo)
    use = f"; name it with --data-dir {folder} or $BASCULE_DATA" if data_dir else ""
    typer.echo(f"data/{name} is in {folder}{use}")


def _plan(study: str, overrides: list[str] | None, scale: str | None, seeds: int | None, data_dir: Path | None) -> Plan:
    from bascule.data import default_roots
    from bascule.plan.document import read_study
    from bascule.plan.overrides import Override, parse_override
    from bascule.plan.resolve import make_plan

    document = read_study(study)
    given = [parse_override(text, "--set") for text in overrides or ()]
    if seeds is not None:
        given.append(Override(path="seeds", value=seeds, origin="--seeds"))
    try:
        return make_plan(document, overrides=given, scale=scale, roots=default_roots(data_dir))
    except RequestError as error:
        if error.place != ("scale",):
            raise
        raise RequestError(f"--scale: {error.problem}") from None


def _page(record: RunRecord) -> Path:
    return record.path / "report.html"


@contextmanager
def _kept_current(record: RunRecord, *, wanted: bool) -> Iterator[Callable[[], object]]:
    """What to call when the record has changed, so that its page follows."""
    if not wanted:
        yield lambda: None
        return
    from bascule.report.page.live import LivePage

    page = LivePage(record, _page(record), warn=lambda text: typer.echo(f"bascule: warning: {text}", err=True))
    try:
        yield page.changed
    finally:
        page.close()


def _end(done: Ran) -> None:
    """Exit code 1 when a cell failed, which is named."""
    for failure in done.failures:
        typer.echo(f"bascule: failed: {failure.label}: {failure.message}", err=True)
    if done.failures:
        raise typer.Exit(1)


def _print_table(records: Sequence[RunRecord], form: Format, more: More | None = None) -> None:
    from bascule.report.runs import rows_of
    from bascule.report.tables.tables import render

    # A log or a pipe gets the table whole; a terminal one that fits.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(render(rows_of(records), form.value, more, width=width), nl=False)


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
