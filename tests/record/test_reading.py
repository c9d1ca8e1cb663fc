"""Each file of a record is read once per command, and each folder listed once, however many parts look at them."""

from __future__ import annotations

import builtins
import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import bascule
from bascule.record.cell import CellRecord
from bascule.record.run import RunRecord, open_run
from bascule.report.export import export
from bascule.report.page.page import write_page
from bascule.report.runs import open_runs, rows_of
from bascule.report.tables.tables import More, render

GOLDEN = Path(__file__).parents[1] / "golden" / "run"
"""16 cells: poisoned ones and twins, repaired and filtered ones, with findings of every kind."""
ANSWERS = {"study.json", "cell.json", "outcomes.parquet", "findings"}
EVERYTHING = ANSWERS | {"curve.jsonl", "trigger.png"}


@contextmanager
def counted_opens(folder: Path) -> Iterator[Counter[Path]]:
    """How often `folder` and what is below it is opened or listed, whoever does it."""
    opens: Counter[Path] = Counter()

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, *args: Any, **more: Any) -> Any:
            if isinstance(file, (str, Path)) and Path(file).is_relative_to(folder):
                opens[Path(file)] += 1
            return real(file, *args, **more)

        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", counting(builtins.open))
        patch.setattr(io, "open", counting(io.open))
        patch.setattr(os, "scandir", counting(os.scandir))
        for name in ("read_table", "read_schema", "ParquetFile"):
            patch.setattr(pq, name, counting(getattr(pq, name)))
        yield opens


def kinds(opens: Counter[Path]) -> set[str]:
    return {"findings" if path.parent.name == "findings" else path.name for path in opens if path.is_file()}


def table(folder: Path) -> None:
    render(rows_of(open_runs([folder.name], folder.parent)), "json", More(against="None", pareto=True, by_class=True))


COMMANDS: dict[str, tuple[Callable[[Path, Path], object], set[str]]] = {
    "table": (lambda run, _: table(run), ANSWERS),
    "report": (lambda run, out: write_page(open_runs([str(run)], run.parent), out / "page.html"), EVERYTHING),
    "export": (lambda run, out: export(open_runs([str(run)], run.parent), out, forms=("svg",)), EVERYTHING),
    "load": (lambda run, _: bascule.load(run), ANSWERS),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_file_is_opened_and_each_folder_listed_once(command: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(GOLDEN, tmp_path / "golden"))
    do, expected = COMMANDS[command]
    with counted_opens(run) as opens:
        do(run, tmp_path / "out")
    assert {path: count for path, count in opens.items() if count > 1} == {}
    assert kinds(opens) == expected
    assert sum(path.name == "outcomes.parquet" for path in opens) == 16


def test_a_run_that_is_found_by_its_plan_keeps_it(tmp_path: Path) -> None:
    run = Path(shutil.copytree(GOLDEN, tmp_path / f"{RunRecord(GOLDEN).plan().study}-fast"))
    with counted_opens(tmp_path) as opens:
        assert open_run(RunRecord(GOLDEN).plan().study, tmp_path).plan() == RunRecord(GOLDEN).plan()
    assert opens == {tmp_path: 1, run / "study.json": 1}


def test_what_was_replaced_is_read_again(tmp_path: Path) -> None:
    run = RunRecord(tmp_path)
    run.cell("one").write_info({"seed": 1})
    assert run.cell("one").info()["seed"] == 1
    run.cell("one").write_info({"seed": 2})
    assert run.cell("one").info()["seed"] == 2
    run.cell("one").info_file.unlink()
    assert run.cell("one").info() == {}


def test_a_model_that_was_made_from_another_knows_it(tmp_path: Path) -> None:
    run = RunRecord(tmp_path)
    run.cell("one").artefacts.mkdir(parents=True)
    (run.cell("one").artefacts / "trigger.png").write_bytes(b"picture")
    run.cell("two").write_info({"base": "one"})
    base = run.cell("two").base()
    assert isinstance(base, CellRecord)
    assert base.picture() == b"picture"
    assert base.base() is run.cell("two").picture() is None
