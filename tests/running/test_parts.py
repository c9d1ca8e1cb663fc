"""Parts of a run, which know of each other by the run folder alone, end in the bytes of a run in one piece."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from bascule.cli.options import part_of
from bascule.core.errors import Interrupted, RequestError
from bascule.hooks import RunFacts
from bascule.plan.document import parse_study
from bascule.plan.plan import Cell, Plan
from bascule.plan.resolve import make_plan
from bascule.record.lock import Part, is_cell_locked, is_locked, lock_cell, lock_run, parts_at_work
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.cell import is_done, record_failure, try_cell
from bascule.running.context import RunContext
from bascule.running.parts import Shared, cells_of_part, open_cells
from bascule.running.run import Ran, run_plan
from interruptible import PROGRAM
from running.test_hooks import Notes
from running.test_processes import kept

STUDY = """\
base:
  data: {name: digits, max_train: 200, max_test: 40, held_out: 40}
  poison: {trigger: {name: sticker, size: 2}, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 2, batch_size: 50}
rows:
  None: {}
  Repaired: {repair: {name: fine-tune, epochs: 1}}
seeds: 2
measure: [accuracy, asr, asr-twin]
"""


def planned(text: str = STUDY) -> Plan:
    return make_plan(parse_study(text, name="own", source="own.yaml"))


def do(run: RunRecord, part: Part | None, *, plan: Plan | None = None, **options: Any) -> Ran:
    return run_plan(plan or planned(), run, device=torch.device("cpu"), roots=(), part=part, **options)


def table(run: RunRecord) -> list[dict[str, Any]]:
    return [row.as_dict() for row in read_rows(run)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The study, run in one piece; tests must not write into it."""
    run = RunRecord(tmp_path_factory.mktemp("whole") / "own")
    assert do(run, None).failures == ()
    return run


def context(run: RunRecord) -> RunContext:
    return RunContext(record=run, device=torch.device("cpu"), roots=())


# --- who does what ---------------------------------------------------------------------------------------------------


def test_every_cell_is_one_parts_own_and_each_has_as_many_of_every_recipe(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(seeds=8)
    shares = [cells_of_part(plan, Part(number, 4)) for number in (1, 2, 3, 4)]
    assert Counter(cell.fingerprint for share in shares for cell in share) == Counter(
        cell.fingerprint for cell in plan.cells()
    )
    for share in shares:
        recipes = Counter(re.sub(r"seed \d", "seed", cell.label) for cell in share)
        assert set(recipes.values()) == {2}
        assert len(recipes) == 4


def test_more_parts_than_cells_leave_some_without_any(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(seeds=1)
    shares = [cells_of_part(plan, Part(number, 9)) for number in range(1, 10)]
    assert [len(share) for share in shares] == [1] * 4 + [0] * 5


@pytest.mark.parametrize("numbers", [(0, 3), (4, 3), (1, 0), (-1, 3)])
def test_there_are_parts_from_1_to_n(numbers: tuple[int, int]) -> None:
    number, of = numbers
    with pytest.raises(RequestError, match=rf"^part: expected I of N with I from 1 to N, got {number} of {of}; where "):
        Part(number, of)


# --- one after another, killed, side by side -------------------------------------------------------------------------


def test_a_part_makes_what_its_own_cells_need_and_the_others_find_it_done(whole: RunRecord, tmp_path: Path) -> None:
    run, plan = RunRecord(tmp_path / "own"), planned()
    needing = [cell for cell in plan.cells() if cell.base is not None and "twin" not in cell.label][:1]
    number = next(number for number in (1, 2, 3, 4, 5) if needing[0] in cells_of_part(plan, Part(number, 5)))
    do(run, Part(number, 5))
    done = {cell.fingerprint for cell in plan.cells() if is_done(cell, run.cell(cell.fingerprint))}
    own = {cell.fingerprint for cell in cells_of_part(plan, Part(number, 5))}
    assert needing[0].base is not None
    assert done > own
    assert needing[0].base.fingerprint in done - own
    hook = Notes()
    for other in (1, 2, 3, 4, 5):
        do(run, Part(other, 5), hooks=[hook])
    begun = [cell.fingerprint for cell in hook.of("cell_begun")]
    assert len(begun) == len(set(begun)) == len(plan.cells()) - len(done)
    assert (kept(run), table(run)) == (kept(whole), table(whole))
    assert run.plan_file.read_bytes() == whole.plan_file.read_bytes()
    facts: RunFacts = hook.of("run_begun")[-1]
    assert len(facts.done) + len(facts.cells) == len(plan.cells())
    assert do(run, None) == Ran(0, ())


def test_a_part_that_is_killed_holds_up_nobody(whole: RunRecord, tmp_path: Path) -> None:
    """Killed while it makes a model; another process does the same part, beside the other part and its workers."""
    (tmp_path / "own.yaml").write_text(STUDY)
    run = RunRecord(tmp_path / "runs" / "own")
    first = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "own.yaml", "--part", "1/2"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not any(is_cell_locked(folder) for folder in run.path.glob("cells/*")):
            assert first.poll() is None
            time.sleep(0.002)
        assert [part for part, _ in parts_at_work(run.path)] == [Part(1, 2)]
    finally:
        first.kill()
        first.wait()
    assert table(run)[0]["flags"]  # there at any time, and says what is missing
    ran: list[Ran] = []
    work = threading.Thread(target=lambda: ran.append(do(RunRecord(run.path), Part(2, 2), jobs=2)))
    work.start()
    ran.append(do(run, Part(1, 2)))
    work.join()
    assert [one.failures for one in ran] == [(), ()]
    assert (kept(run), table(run)) == (kept(whole), table(whole))
    assert not [path for path in run.path.rglob(".*") if path.name not in (".lock", ".holder", ".parts")]


def test_a_part_that_is_interrupted_counts_its_own_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(cell: Cell, run: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bascule.running.run.try_cell", stop)
    with pytest.raises(Interrupted, match=r"interrupted: 0 of \d cells of part 1 of 2 are done and kept in "):
        do(RunRecord(tmp_path / "own"), Part(1, 2))


def test_a_part_waits_for_a_cell_that_somebody_is_at_and_says_so(whole: RunRecord, tmp_path: Path) -> None:
    run, plan = RunRecord(tmp_path / "own"), planned()
    first, *others = plan.cells()
    said, ran = io.StringIO(), []
    work = threading.Thread(target=lambda: ran.append(do(run, Part(1, 1), console=Console(file=said))))
    with lock_cell(run.cell(first.fingerprint).path):
        work.start()
        free = [cell for cell in others if first.fingerprint not in {other.fingerprint for other in cell.needs}]
        while not all(is_done(cell, RunRecord(run.path).cell(cell.fingerprint)) for cell in free):
            assert work.is_alive()
            time.sleep(0.05)
        assert not run.cell(first.fingerprint).trained
        try_alone(first, run)
    work.join()
    assert ran == [Ran(8, ())]
    assert f"{first.label}, by another part: " in said.getvalue()
    assert (kept(run), table(run)) == (kept(whole), table(whole))


def try_alone(cell: Any, run: RunRecord) -> None:
    """What another process does that holds the cell's lock."""
    from bascule.running.cell import do_cell

    do_cell(cell, context(RunRecord(run.path)))
    record = run.cell(cell.fingerprint)
    record.write_info({**record.info(), "finished": "2026-01-01T00:00:00+00:00"})


def test_what_fails_elsewhere_is_tried_once_at_most(tmp_path: Path) -> None:
    run, plan = RunRecord(tmp_path / "own"), planned()
    first, second, *_ = plan.cells()
    record_failure(first, context(run), "Error", "long ago")
    waiting = Shared([first, second], context(run))
    assert waiting.begin() == first  # what failed before may be good by now
    waiting.end(first, 1.0, "again")
    record_failure(second, context(run), "Error", "a moment ago, elsewhere")
    assert waiting.begin() is None
    assert not waiting
    assert [failure.message for failure in waiting.failures] == ["again", "a moment ago, elsewhere"]


def test_nothing_is_written_into_a_cell_that_somebody_is_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bascule.running.cell._PATIENCE", 0.0)
    run, cell = RunRecord(tmp_path / "own"), planned().cells()[0]
    with lock_cell(run.cell(cell.fingerprint).path):
        record_failure(cell, context(run), "LostWorker", "its worker was lost")
        assert run.cell(cell.fingerprint).info() == {}
        work = threading.Thread(target=try_cell, args=(cell, context(RunRecord(run.path))))
        work.start()
        work.join(0.5)
        assert work.is_alive()
        assert run.cell(cell.fingerprint).info() == {}
    work.join()
    assert is_done(cell, run.cell(cell.fingerprint))


def test_a_part_mends_what_its_cells_are_made_from(whole: RunRecord, tmp_path: Path) -> None:
    run, plan, said = RunRecord(tmp_path / "own"), planned(), []
    needing = next(cell for cell in plan.cells() if cell.base is not None)
    assert needing.base is not None
    base = needing.base.fingerprint
    part = next(
        Part(n, 8) for n in range(1, 9) if [cell.fingerprint for cell in cells_of_part(plan, Part(n, 8))] == [base]
    )
    do(run, part)
    model = run.cell(base).model_file
    model.write_bytes(model.read_bytes()[:-1])
    (model.parent / ".cell.json.1-deadbeef").touch()
    (run.path / ".report.html.1-deadbeef").touch()  # of a process that may be on another machine
    own = next(Part(n, 8) for n in range(1, 9) if needing in cells_of_part(plan, Part(n, 8)))
    assert do(run, own, warn=said.append).failures == ()
    assert len(said) == 1
    assert "model.safetensors: it is damaged" in said[0]
    assert kept(run)[base] == kept(whole)[base]
    assert not list(model.parent.glob(".cell.json.*"))
    assert (run.path / ".report.html.1-deadbeef").exists()
    assert open_cells(cells_of_part(plan, own), plan, run, lambda _: None) == []


# --- who is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "asked", "change", "message"),
    [
        (Part(1, 2), Part(1, 2), (), r"^process \d+ on .*bascule run own --part\) works on part 1 of 2 of {run}\. "),
        (Part(1, 2), Part(1, 3), (), r"^this is part 1 of 3, but process \d+ .* works on part 1 of 2 of {run}\. Wait"),
        (
            Part(1, 2), Part(2, 2), ("epochs: 2", "epochs: 3"),
            r"^part 2 of 2 \(.+\) is to make other models, or .*process \d+ .* works on part 1 of 2 of {run}\. Wait",
        ),
        (Part(1, 2), None, (), r"^process \d+ on .* works on part 1 of 2 of {run}\. Wait"),
        (None, Part(1, 2), (), r"^process \d+ on .*: bascule run own --part\) works on {run}\. Wait"),
    ],
)  # fmt: skip
def test_who_is_in_the_way_is_refused_and_told_of_whom(
    held: Part | None, asked: Part | None, change: tuple[str, str], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("bascule.record.lock._GLANCE", 0.1)
    run = RunRecord(tmp_path / "own")
    with lock_run(run.path, "bascule run own --part", held) as let_others_begin:
        run.write_plan(planned().recorded())
        let_others_begin()
        before = run.plan_file.read_bytes()
        with pytest.raises(RequestError) as refused:
            do(run, asked, plan=planned(STUDY.replace(*change) if change else STUDY))
        assert re.match(message.replace("{run}", re.escape(str(run.path))), str(refused.value))
        assert run.plan_file.read_bytes() == before
        assert is_locked(run.path) == (held is None)
    assert not (run.path / "cells").exists()
    with lock_run(run.path, "bascule run own"):
        pass


def test_parts_begin_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bascule.record.lock._PATIENCE", 0.1)
    with ExitStack() as open_ones:
        let_others_begin = open_ones.enter_context(lock_run(tmp_path, "bascule run", Part(1, 2)))
        with pytest.raises(RequestError, match="was held for 0 s by another part that is beginning: is it stopped"):
            open_ones.enter_context(lock_run(tmp_path, "bascule run", Part(2, 2)))
        with pytest.raises(RequestError, match=f"^process {os.getpid()} on "):
            open_ones.enter_context(lock_run(tmp_path, "bascule run"))
        let_others_begin()
        open_ones.enter_context(lock_run(tmp_path, "bascule run", Part(2, 2)))()
        assert [part for part, _ in parts_at_work(tmp_path)] == [Part(1, 2), Part(2, 2)]
    assert parts_at_work(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / ".parts").iterdir()) == [".lock", "1-of-2.lock", "2-of-2.lock"]


def test_ray_shares_a_run_out_itself(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^part: not with `engine` ray, which shares a run out itself"):
        do(RunRecord(tmp_path / "own"), Part(1, 2), engine="ray")
    assert not (tmp_path / "own").exists()


# --- scripts of the guide --------------------------------------------------------------------------------------------

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "job-arrays.md"


def test_the_guides_scripts_give_each_task_a_part_of_its_own(tmp_path: Path) -> None:
    """Run by the shell as a queue would, with a stand-in for the command."""
    (tmp_path / "bascule").write_text('#!/bin/sh\nfor word; do part=$last; last=$word; done\necho "$part $last"\n')
    (tmp_path / "bascule").chmod(0o755)
    blocks = dict(re.findall(r"^```(bash|yaml)\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE))
    (kubernetes,) = yaml.safe_load(blocks["yaml"])["spec"]["template"]["spec"]["containers"]
    assert yaml.safe_load(blocks["yaml"])["spec"]["completions"] == 8
    slurm = ["bash", "-c", blocks["bash"].replace("/shared/studies", str(tmp_path))]
    assert "#SBATCH --array=1-8\n" in blocks["bash"]

    def said(command: list[str], **variables: str) -> str:
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    parts = [part_of(said(slurm, SLURM_ARRAY_TASK_ID=f"{n}", SLURM_ARRAY_TASK_COUNT="8").split()[1]) for n in (1, 8)]
    parts += [part_of(said(kubernetes["command"], JOB_COMPLETION_INDEX=f"{n}").split()[1]) for n in (0, 7)]
    assert parts == [(1, 8), (8, 8)] * 2
