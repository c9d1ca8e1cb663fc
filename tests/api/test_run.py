"""A study from Python: the same record as the command makes, read as people read it."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import bascule
from bascule.cli import app
from bascule.plan.document import parse_study, read_study, study_of, written
from bascule.plan.resolve import make_plan
from bascule.record.run import RunRecord
from bascule.running import cell as cells
from bascule.running import run as running
from running.test_hooks import Notes

GOLDEN = Path(__file__).parents[1] / "golden"


def content_of(folder: Path) -> dict[str, object]:
    """Models, answers and findings of a record, without the times that are kept beside them."""
    content: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".parquet":
            content[name] = pq.read_table(path).to_pydict()
        elif path.suffix in (".safetensors", ".npz", ".png"):
            content[name] = path.read_bytes()
    return content


# --- the same as the command -----------------------------------------------------------------------------------------


def test_the_record_is_the_commands(study: Path, made: bascule.Run, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["run", str(study), "--runs", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert content_of(tmp_path / "tiny") == content_of(made.path)
    assert len(content_of(made.path)) > 8
    assert (tmp_path / "tiny" / "study.json").read_bytes() == (made.path / "study.json").read_bytes()
    assert f"{made}\n" in said.output


def test_hooks_are_told(study: Path, made: bascule.Run) -> None:
    notes = Notes()
    bascule.run(study, runs=made.path.parent, hooks=[notes])
    assert notes.names() == ["run_begun", "table", "run_ended"]
    assert [row["row"] for row in notes.of("table")[0]] == list(made)


def test_a_mapping_is_the_study_that_a_file_would_be(content: dict[str, Any], study: Path, made: bascule.Run) -> None:
    own = make_plan(study_of(content, name="tiny"))
    of_file = make_plan(read_study(str(study)))
    assert [cell.fingerprint for cell in own.cells()] == [cell.fingerprint for cell in of_file.cells()]
    again = bascule.run(content, name="tiny", runs=made.path.parent, progress=False)
    assert again.path == made.path
    assert {key: dict(row) for key, row in again.items()} == {key: dict(row) for key, row in made.items()}


def test_what_is_done_is_not_done_again(study: Path, made: bascule.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(running, "try_cell", never)
    assert str(bascule.run(study, runs=made.path.parent, progress=False)) == str(made)


@pytest.mark.parametrize(
    "change",
    [
        {"train.epochs": 3, "attack.eps": "16/255", "rows.None.train.epochs": 1},
        ["train.epochs=3", "attack.eps=16/255", "rows.None.train.epochs=1"],
    ],
)
def test_settings_are_changed_as_by_the_command(change: Any, study: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "try_cell", lambda cell, run: None)  # the plan is what is looked at
        found = bascule.run(study, seeds=2, set=change, runs=tmp_path, progress=False)
    plan = RunRecord(found.path).plan()
    assert [row.settings["train"]["epochs"] for row in plan.rows] == [1, 3]
    assert [len(row.seeds) for row in plan.rows] == [2, 2]
    assert plan.rows[0].settings["attack"][0]["eps"] == 16 / 255
    assert plan.overrides == ("train.epochs=3", "attack.eps=16/255", "rows.None.train.epochs=1", "seeds=2")
    assert not found.done


# --- a study as a mapping --------------------------------------------------------------------------------------------


def test_every_built_in_study_is_the_same_as_a_mapping() -> None:
    for name in ("digits", "paper/mnist-1a", "both-ends"):
        content = read_study(name).content
        assert study_of(content, name="own").content == content


def test_components_and_numbers_stand_in_a_mapping_as_in_a_file() -> None:
    given = {
        "attack": bascule.attacks.Pgd(eps=0.1, steps=2), "path": Path("a/b"), "eps": "8/255", "pair": (1, 2),
        "on": True, "nothing": None, "text": "yes", "tiny": 1e-7, "key": {3: "x"},
    }  # fmt: skip
    read = study_of(given, name="own").content
    attack = read.pop("attack")
    assert (attack["name"], attack["eps"], attack["steps"]) == ("pgd", 0.1, 2)
    assert read == {
        "path": "a/b", "eps": 8 / 255, "pair": [1, 2], "on": True, "nothing": None, "text": "yes", "tiny": 1e-7,
        "key": {"3": "x"},
    }  # fmt: skip


def test_what_stands_twice_is_written_twice() -> None:
    same = {"name": "pgd", "eps": 0.1}
    text = written({"a": same, "b": [same]})
    assert "&" not in text
    assert parse_study(text, name="own", source="own").content == {"a": same, "b": [same]}


# --- wrong requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"study": 5}, "study: a built-in name, the path of a .yaml file, or a mapping; got 5"),
        ({"study": "digit"}, "unknown study 'digit'. Did you mean 'digits'?"),
        ({"name": "a/b"}, "name: a study is called as a folder may be"),
        ({"name": ".."}, "name: a study is called as a folder may be"),
        ({"seeds": 0}, "seeds: must be greater than or equal to 1"),
        ({"seeds": "2"}, "seeds: expected a whole number, got '2'"),
        ({"set": {"train.epoch": 3}}, "set train.epoch: in row 'None': train: unknown key 'epoch'"),
        ({"set": {"train.epochs": object}}, "set.train.epochs: "),
        ({"set": ["train.epochs"]}, "set 'train.epochs': expected key=value"),
        ({"set": 3}, "set: a mapping, or texts such as train.epochs=3; got 3"),
        ({"scale": "paper"}, "scale: the study 'study' has no scales"),
        ({"device": "tpu"}, "device: allowed are auto, cpu, cuda and cuda:N"),
        ({"jobs": 0}, "jobs: at least one cell at a time"),
        ({"jobs": True}, "jobs: expected a whole number"),
        ({"part": 1}, "part: two whole numbers I and N, as (1, 4) for the first of four; got 1"),
        ({"part": "1/4"}, "part: two whole numbers I and N, as (1, 4) for the first of four; got '1/4'"),
        ({"part": (1, "4")}, "part: expected a whole number, got '4'"),
        ({"part": (5, 4)}, "part: expected I of N with I from 1 to N, got 5 of 4"),
        ({"part": (1, 4), "engine": "ray"}, "part: not with `engine` ray"),
        ({"workers": 0}, "workers: at least one thread that decodes; got 0"),
        ({"read_ahead": -1}, "read_ahead: MiB from 0 (nothing ahead) on; got -1"),
        ({"engine": "spark"}, "engine: unknown engine 'spark'"),
    ],
)
def test_a_wrong_request_is_one_error_before_any_work(
    given: dict[str, Any], problem: str, content: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(bascule.RequestError) as refused:
        bascule.run(**{"study": content, "runs": tmp_path / "runs", "progress": False, **given})
    assert str(refused.value).startswith(problem)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda study: study["base"]["train"].update(epochs=object()), "is object, which no study can hold"),
        (lambda study: study["base"]["train"].update(epochs="many"), "study 'study': base.train.epochs: "),
        (lambda study: study.pop("rows"), "a study needs at least one row"),
        (lambda study: study.update(nested=study), "more than 24 levels of values inside values"),
        (lambda study: study.update(title="\x1b[31m"), "holds the character"),
    ],
)
def test_a_wrong_mapping_says_where(change: Callable[[Any], Any], problem: str, content: dict[str, Any]) -> None:
    wrong = deepcopy(content)
    change(wrong)
    with pytest.raises(bascule.RequestError) as refused:
        bascule.run(wrong, progress=False)
    assert problem in str(refused.value)


# --- stopped, failed, in a notebook ----------------------------------------------------------------------------------


def test_an_interrupted_run_continues_to_the_same_bytes(study: Path, made: bascule.Run, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        real, seen = running.try_cell, []

        def stopped(cell: Any, run: Any) -> str | None:
            seen.append(cell)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return real(cell, run)

        patch.setattr(running, "try_cell", stopped)
        with pytest.raises(KeyboardInterrupt, match=r"interrupted: 2 of 4 cells are done and kept in .*tiny"):
            bascule.run(study, runs=tmp_path, progress=False)
    assert not bascule.load("tiny", runs=tmp_path).done
    found = bascule.run(study, runs=tmp_path, progress=False)
    assert found.done
    assert str(found) == str(made)
    assert content_of(found.path) == content_of(made.path)


def test_a_failed_cell_is_said_and_the_others_go_on(study: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        real = cells.do_cell

        def fails(cell: Any, run: Any) -> None:
            if cell.label == "Adv. training · seed 0":
                raise RuntimeError("no luck")
            real(cell, run)

        patch.setattr(cells, "do_cell", fails)
        said = r"1 cell of 4 failed \(see `failed`\): Adv. training · seed 0: no luck"
        with pytest.warns(UserWarning, match=said):
            found = bascule.run(study, runs=tmp_path, progress=False)
    assert dict(found.failed) == {"Adv. training · seed 0": "no luck"} == dict(bascule.load(found).failed)
    assert not found.done
    assert found["None"]["accuracy"].value is not None
    assert found["Adv. training"]["accuracy"].value is None
    assert "failed: Adv. training · seed 0: no luck" in str(found)
    assert not found.check("accuracy >= 0", row="Adv. training")
    assert dict(bascule.run(study, runs=tmp_path, progress=False).failed) == {}


def test_it_runs_where_a_loop_of_events_runs_and_no_terminal_is(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook: the caller is a coroutine, standard streams are no files."""

    async def cell_of_a_notebook() -> bascule.Run:
        return bascule.run(study, runs=tmp_path)

    streams = {name: io.StringIO() for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    found = asyncio.run(cell_of_a_notebook())
    assert found.done
    assert streams["stdout"].getvalue() == ""
    assert "4 of 4 cells" in streams["stderr"].getvalue()


# --- what is read of it ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> bascule.Run:
    return bascule.load(GOLDEN / "run")


def test_an_old_record_is_read_by_name(golden: bascule.Run) -> None:
    table = json.loads((GOLDEN / "tables" / "table.json").read_text())
    assert str(golden) + "\n" == (GOLDEN / "tables" / "table.text").read_text()
    assert golden.table("json") == (GOLDEN / "tables" / "table.json").read_text()
    assert golden.table(against="None") == (GOLDEN / "tables" / "against.text").read_text()
    assert len(golden) == len(table)
    for label, entry in zip(golden, table, strict=True):
        row = golden[label]
        assert label.startswith(entry["row"])
        assert {name: measure.as_dict() for name, measure in row.items()} == entry["metrics"]
        assert (row.name, row.seeds, list(row.flags)) == (label, entry["seeds"], entry["flags"])
        assert dict(row.vary) == entry["vary"]


def test_names_that_are_not_there_are_told(made: bascule.Run) -> None:
    assert "None" in made
    assert "none of these" not in made
    assert made.get("none of these") is None
    with pytest.raises(bascule.RequestError, match=r"unknown row 'Adv. trainin'. Did you mean 'Adv. training'"):
        made["Adv. trainin"]
    with pytest.raises(KeyError, match="unknown metric of this run 'robustness'"):
        made["None"]["robustness"]
    assert made["None"]["robust-accuracy"] == made["None"]["robust_accuracy"]


def test_a_row_that_varies_is_named_with_its_value(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "try_cell", lambda cell, run: None)
        found = bascule.run({**content, "vary": {"train.lr": [0.1, 0.2]}}, runs=tmp_path, progress=False)
    assert list(found)[:2] == ["None · train.lr 0.1", "None · train.lr 0.2"]
    assert found["None · 0.2"].vary == {"train.lr": 0.2}
    with pytest.raises(bascule.RequestError, match=r"'None' is 'None · train.lr 0.1' or 'None · train.lr 0.2'"):
        found["None"]


def test_frames_are_made_when_they_are_asked_for(made: bascule.Run) -> None:
    assert isinstance(made.rows, pd.DataFrame)
    assert made.rows is made.frames().rows
    assert list(made.rows["row"]) == list(made)
    assert made.rows["accuracy"].tolist() == [row["accuracy"].value for row in made.values()]
    assert len(made.cells) == 4
    assert len(made.outcomes) == 4 * 40


def test_it_is_checked_and_reported(made: bascule.Run, tmp_path: Path) -> None:
    assert made.check("accuracy >= 0")
    assert bascule.check(made, "accuracy >= 0")
    assert not made.check("accuracy > 100 %", row="None")
    assert made.report(tmp_path / "page.html") == tmp_path / "page.html"
    assert "Adv. training" in (tmp_path / "page.html").read_text()


def test_it_is_a_path(made: bascule.Run) -> None:
    assert Path(made) == made.path
    assert str(bascule.load(made)) == str(made)


def test_html_has_the_table_with_intervals_and_flags(made: bascule.Run) -> None:
    text = made._repr_html_()
    low = 100 * (made["None"]["accuracy"].low or 0)
    assert "Robust accuracy" in text
    assert f"{low:.1f}" in text
    assert "few images" in text
    assert "Adv. training" not in made["None"]._repr_html_()


def test_load_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(bascule.RequestError, match="no run 'digits': give a run folder"):
        bascule.load("digits", runs=tmp_path)
    with pytest.raises(bascule.RequestError, match="run: a run folder, or the name of a study that was run; got 3"):
        bascule.load(3)
    folder = Path(shutil.copytree(GOLDEN / "run", tmp_path / "damaged"))
    (folder / "study.json").write_text("{")
    with pytest.raises(bascule.RequestError, match=r"study\.json"):
        bascule.load(folder)
