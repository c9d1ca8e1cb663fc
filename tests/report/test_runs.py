"""Several runs: found once each, with names that tell them apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bascule.core.errors import RequestError
from bascule.record.run import RunRecord
from bascule.report.runs import open_runs, rows_of, run_names
from records import plan_of_rows


def run_in(folder: Path) -> RunRecord:
    run = RunRecord(folder)
    run.write_plan(plan_of_rows(metrics=("accuracy",)))
    return run


def test_each_is_found_by_folder_or_name(tmp_path: Path) -> None:
    run_in(tmp_path / "a")
    run_in(tmp_path / "deep" / "b")
    found = open_runs(["a", str(tmp_path / "deep" / "b")], tmp_path)
    assert [run.path for run in found] == [tmp_path / "a", tmp_path / "deep" / "b"]


def test_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    run_in(tmp_path / "a")
    with pytest.raises(RequestError, match=r"no run 'nine': give a run folder, .* Runs in .*: a\."):
        open_runs(["a", "nine"], tmp_path)


def test_one_that_is_given_twice_is_named(tmp_path: Path) -> None:
    run_in(tmp_path / "a")
    with pytest.raises(RequestError, match=re.escape("run 'a' is given twice (")):
        open_runs(["a", "a"], tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(RequestError, match=re.escape("run 'link' is given twice, also as 'a' (")):
        open_runs(["a", "link"], tmp_path)


def test_names_are_the_shortest_that_differ(tmp_path: Path) -> None:
    def names(*folders: str) -> list[str]:
        return run_names([RunRecord(tmp_path / folder) for folder in folders])

    assert names("x/digits") == [""]
    assert names("x/digits", "x/mnist") == ["digits", "mnist"]
    assert names("x/digits", "y/digits", "y/mnist") == ["x/digits", "y/digits", "mnist"]
    assert names("digits", "digits/digits") == [f"{tmp_path.name}/digits", "digits/digits"]


def test_rows_know_their_run_only_where_there_are_several(tiny_run: RunRecord, tmp_path: Path) -> None:
    assert {row.run for row in rows_of([tiny_run])} == {""}
    other = run_in(tmp_path / "other")
    rows = rows_of([other, tiny_run])
    assert {row.run for row in rows} == {"tiny"}
    assert rows[0].name == "None · tiny"
    assert rows[0].label == "None · tiny · train.lr 0.01"
