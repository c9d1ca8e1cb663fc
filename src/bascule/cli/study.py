"""Commands about a study: run it, check it, ask more of its run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bascule.cli.options import (
    DataDirOption,
    DevicesOption,
    Engine,
    EvaluateOptions,
    Format,
    JobsOption,
    PartOption,
    ResourcesOption,
    RunsOption,
    ScaleOption,
    SeedsOption,
    SetOption,
    StudyArgument,
    amounts_of,
    part_of,
    spec_of,
)
from bascule.cli.output import complain, echo
from bascule.cli.report import print_table
from bascule.cli.several import met, start_on_each
from bascule.core.text import count

if TYPE_CHECKING:
    from bascule.plan.overrides import Override
    from bascule.plan.plan import Cell, Plan, Row
    from bascule.record.run import RunRecord
    from bascule.running.run import Ran


def run(
    study: StudyArgument,
    runs: RunsOption = Path("runs"),
    set_: SetOption = None,
    scale: ScaleOption = None,
    seeds: SeedsOption = None,
    device: DevicesOption = "auto",
    engine: Annotated[
        Engine, typer.Option(help="Train here, or on a Ray cluster (needs the extra `ray`).")
    ] = Engine.local,
    jobs: JobsOption = None,
    part: PartOption = None,
    resources: ResourcesOption = None,
    data_dir: DataDirOption = None,
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="For speed: compile the passes of training, where the objective allows it."),
    ] = False,
    capture: Annotated[
        bool,
        typer.Option(
            "--capture",
            help="For speed: capture the steps of training as CUDA graphs, where the objective allows it.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Threads that decode pictures on disk; by default as many as there are cores."
        ),
    ] = None,
    read_ahead: Annotated[
        int, typer.Option(min=0, metavar="MIB", help="MiB of pictures decoded before they are asked for; 0: none.")
    ] = 256,
    report_: Annotated[
        bool, typer.Option("--report", help="Keep report.html in the run folder current, to be watched in a browser.")
    ] = False,
) -> None:
    """Train, attack from both sides, and print the table. The same command again continues where it stopped."""
    start_on_each(device, part)
    from bascule.api.run import run_study
    from bascule.core.ahead import Reading
    from bascule.plan.document import read_study
    from bascule.running.context import Speed

    with met() as team:
        numbers = team.alike(lambda: part_of(part))
        plan, record, done = run_study(
            team.alike(lambda: read_study(study)), overrides=team.alike(lambda: _overrides(set_, seeds)), scale=scale,
            runs=runs, device=device, team=team, jobs=jobs, part=numbers, engine=engine.value,
            resources=team.alike(lambda: amounts_of(resources)), data_dir=data_dir, report=report_, warn=_warn,
            speed=team.alike(lambda: Speed(compile_, capture, Reading(workers, read_ahead))),
        )  # fmt: skip
        if team.leads:
            print_table([record], Format.text)
            echo(f"\n{record.path}: {_told(plan, record, done, numbers)}.")
            echo(f"Report: {record.path / 'report.html'}" if report_ else f"Report: bascule report {record.path}")
            _name_failed(done)
    _end(done)


def validate(
    study: StudyArgument,
    set_: SetOption = None,
    scale: ScaleOption = None,
    seeds: SeedsOption = None,
    data_dir: DataDirOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every picture; without it, the headers of picture files are read.")
    ] = False,
) -> None:
    """Check a study completely without running it, and say what it would do."""
    from bascule.record.plan import came_as_it_is

    plan = _plan(study, set_, scale, seeds, data_dir)
    _check_data(plan, data_dir, deep=deep)
    cells = plan.cells()
    questions = sum(len(cell.questions) for cell in cells)
    given = sum(came_as_it_is(cell.settings()) for cell in cells)
    ready = f" and {given} that come with their weights" if given else ""
    models = f"{count(len(cells) - given, 'model')} to train (twins included){ready}"
    echo(f"{study}: good. {count(len(plan.rows), 'row')}, {models}, {count(questions, 'evaluation')}.")
    for row in plan.rows:
        settings = "".join(f" · {path} {value}" for path, value in row.vary.items())
        counts = ", ".join(count(n, word) for n, word in _models_of(row) if n)
        echo(f"  {row.name}{settings}: {counts}")
    if any(row.setup.probe is not None for row in plan.rows):
        echo("  probe looks at models while they are trained; one that is trained already is not trained again for it.")


def evaluate_run(record: RunRecord, given: EvaluateOptions) -> None:
    """Ask more of the trained models of a run, and print its table."""
    start_on_each(given.device)
    from bascule.data.contract import default_roots
    from bascule.plan.overrides import Override
    from bascule.running.extend import more_asked
    from bascule.running.together import own_device, run_together

    roots = default_roots(given.data_dir)
    asked = {
        "attack": given.attack, "certify": given.certify, "measure": given.measure,
        "curve": [f"[{given.curve}]"] if given.curve else [],
    }  # fmt: skip
    additions = [
        Override(path=key, value=spec_of(text, key), origin=f"--{key}", adds=True)
        for key, texts in asked.items()
        for text in texts
    ]
    with met() as team:
        plan = team.alike(lambda: more_asked(record, additions, roots, trust_code=given.trust_code))
        done = run_together(
            team, plan, record, device=own_device(given.device, team), roots=roots, jobs=given.jobs, train=False,
            warn=_warn,
        )  # fmt: skip
        if team.leads:
            print_table([record], given.form)
            _name_failed(done)
    _end(done)


def _told(plan: Plan, record: RunRecord, done: Ran, part: tuple[int, int] | None) -> str:
    """What was there to do, and how much of it was done before."""
    if part is None:
        return _counted(len(plan.cells()), done)
    from bascule.record.lock import Part
    from bascule.running.cell import is_done
    from bascule.running.parts import cells_of_part

    def finished(cells: Sequence[Cell]) -> str:
        done = sum(is_done(cell, record.cell(cell.fingerprint)) for cell in cells)
        return f"{done} of {count(len(cells), 'model')}"

    this = Part(*part)
    return f"{this}: {finished(cells_of_part(plan, this))} done; {finished(plan.cells())} of the whole run"


def _warn(text: str) -> None:
    complain(f"warning: {text}")


def _plan(study: str, overrides: list[str] | None, scale: str | None, seeds: int | None, data_dir: Path | None) -> Plan:
    from bascule.data.contract import default_roots
    from bascule.plan.document import read_study
    from bascule.plan.resolve import make_plan

    return make_plan(
        read_study(study), overrides=_overrides(overrides, seeds), scale=scale, roots=default_roots(data_dir)
    )


def _overrides(texts: list[str] | None, seeds: int | None) -> list[Override]:
    from bascule.plan.overrides import Override, parse_override

    given = [parse_override(text, "--set") for text in texts or ()]
    return [*given, *([] if seeds is None else [Override(path="seeds", value=seeds, origin="--seeds")])]


def _check_data(plan: Plan, data_dir: Path | None, *, deep: bool) -> None:
    """Look for damaged pictures, in each source once."""
    from bascule.core.errors import placed
    from bascule.data.contract import default_roots

    for source in {repr(row.setup.data): row.setup.data for row in plan.rows}.values():
        with placed("data"):
            source.check(default_roots(data_dir), deep=deep)


def _models_of(row: Row) -> list[tuple[int, str]]:
    return [(len(row.cells), "seed"), (len(row.twins), "twin")]


def _counted(models: int, done: Ran) -> str:
    """`20 models, all done now`, `20 models, 1 failed, 15 done now, 4 done before`."""
    failed = len(done.failures)
    counts = {"failed": failed, "done now": done.cells - failed, "done before": models - done.cells}
    some = [f"{'all' if number == models > 1 else f'{number:,}'} {word}" for word, number in counts.items() if number]
    return ", ".join([count(models, "model"), *some])


def _name_failed(done: Ran) -> None:
    for failure in done.failures:
        complain(f"failed: {failure.label}: {failure.message}")


def _end(done: Ran) -> None:
    """Exit code 1 when a cell failed."""
    if done.failures:
        raise typer.Exit(1)
