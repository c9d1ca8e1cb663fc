"""Tables, pages and figures from the command line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def test_run_table_and_report(bascule: Callable, study: Path, tmp_path: Path) -> None:
    said = bascule("run", str(study))
    assert said.code == 0
    assert "Adv. training" in said.out
    assert "4 models, all done now." in said.out
    again = bascule("run", str(study))
    assert "4 models, all done before." in again.out
    assert again.err == ""
    rows = json.loads(bascule("table", "tiny", "--format", "json").out)
    assert [row["row"] for row in rows] == ["None", "Adv. training"]
    against = bascule("table", "tiny", "--against", "None", "--pareto")
    assert against.code == 0
    assert re.search(r"^ Row less None +Seeds", against.out, re.MULTILINE)
    assert re.search(r"^Adv\. training .*(at one seed|rests on one seed)", against.out, re.MULTILINE)
    assert "Not beaten at both ends" in against.out
    rows = json.loads(bascule("table", "tiny", "--against", "None", "--by-class", "--format", "json").out)
    assert rows[1]["differences"]["metrics"]["accuracy"]["n"] == 40
    assert sum(part["n"] for part in rows[0]["by_class"]) == 40
    assert re.search(r"^ None +3 +1 ", bascule("table", "tiny", "--by-class").out, re.MULTILINE)
    wrong = bascule("table", "tiny", "--against", "Nine")
    assert (wrong.code, wrong.out) == (2, "")
    assert "unknown row 'Nine'. Did you mean 'None'? Allowed: Adv. training, None." in wrong.err
    page = bascule("report", "tiny", "--output", "page.html")
    assert page.out.strip() == "page.html"
    assert "Adv. training" in (tmp_path / "page.html").read_text()
    exported = bascule("export", "tiny", "--output", "figures", "--format", "svg").out.split()
    assert exported[0] == "figures/tradeoff.svg"
    assert {"figures/trigger-0.svg", "figures/curve-1.svg", "figures/table.tex"} <= set(exported)
    assert all((tmp_path / name).is_file() for name in exported)


def test_a_terminal_gets_a_table_that_fits(bascule: Callable, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bascule("run", str(study), "--set", "twin=false").out.partition("runs/tiny:")[0].rstrip()
    monkeypatch.setenv("COLUMNS", "60")
    assert bascule("table", "tiny").out.rstrip() == whole  # a pipe is no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fitting = bascule("table", "tiny").out
    assert max(map(len, whole.splitlines())) > 100
    assert max(map(len, fitting.splitlines())) <= 60
    assert fitting.count(" Row ") > 1
    monkeypatch.setenv("COLUMNS", "120")
    assert bascule("table", "tiny").out.rstrip() == whole


def test_several_runs_stand_in_one_table_and_one_report(bascule: Callable, study: Path, tmp_path: Path) -> None:
    bascule("run", str(study))
    bascule("run", str(study), "--runs", "others", "--set", "twin=false", "--set", "train.lr=0.01")
    both = ("tiny", "others/tiny")
    rows = json.loads(bascule("table", *both, "--format", "json").out)
    assert [(row["run"], row["row"]) for row in rows] == [
        (run, name) for run in ("runs/tiny", "others/tiny") for name in ("None", "Adv. training")
    ]
    assert "run" not in json.loads(bascule("table", "tiny", "--format", "json").out)[0]
    assert re.search(r"^ Row +Run +Seeds", bascule("table", *both).out, re.MULTILINE)
    said = bascule("report", *both)
    assert (said.code, said.out) == (2, "")
    assert "2 runs have no folder in common: say where to write, with --output report.html" in said.err
    assert "with --output export" in bascule("export", *both).err
    assert bascule("report", *both, "--output", "both.html").out.strip() == "both.html"
    assert "runs/tiny and others/tiny, side by side" in (tmp_path / "both.html").read_text()
    assert bascule("export", *both, "--output", "both", "--format", "svg").code == 0
    assert "Adv. training · others/tiny" in (tmp_path / "both" / "tradeoff.svg").read_text()
    assert (tmp_path / "both" / "table.csv").read_text().startswith("run,study,row,")
    twice = bascule("table", "tiny", "runs/tiny")
    assert (twice.code, twice.out) == (2, "")
    assert "run 'runs/tiny' is given twice, also as 'tiny' (runs/tiny): give each run once" in twice.err
    assert "no run 'nine'" in bascule("report", "tiny", "nine", "--output", "x.html").err
    assert not (tmp_path / "x.html").exists()


def test_output_that_cannot_be_written_is_one_message(bascule: Callable, study: Path, tmp_path: Path) -> None:
    assert bascule("run", str(study), "--set", "twin=false").code == 0
    (tmp_path / "file").touch()
    for words in (
        ["run", str(study), "--runs", "file/runs"],
        ["report", "tiny", "--output", "file/page.html"],
        ["export", "tiny", "--output", "file/export"],
    ):
        said = bascule(*words)
        assert said.code == 2
        assert re.fullmatch(r"bascule: cannot write to the folder file\S*: [\w ]+\. Give another one\n", said.err)
    assert "is a folder" in bascule("report", "tiny", "--output", str(tmp_path)).err


def test_map_shows_rows_that_differ_in_two_numbers_and_says_so_where_none_do(
    bascule: Callable, study: Path, tmp_path: Path
) -> None:
    plain = study.read_text()
    study.write_text(f"{plain}vary: {{poison.trigger.size: [1, 2]}}\n")
    assert bascule("run", "tiny.yaml", "--device", "cpu").code == 0
    said = bascule("table", "tiny", "--map")
    assert said.code == 0
    assert "Hardening against None: at one seed no change of ASR is clear." in said.out
    (entry,) = json.loads(bascule("table", "tiny", "--map", "--format", "json").out)
    assert (entry["across"], entry["up"]) == ("poison.trigger.size", "train.objective.eps")
    said = bascule("table", "tiny", "--map", "--pareto")
    assert said.code == 2
    assert "these tables stand alone" in said.err
    study.write_text(plain)
    assert bascule("run", "tiny.yaml", "--device", "cpu", "--runs", "other").code == 0
    said = bascule("table", "tiny", "--runs", "other", "--map")
    assert said.code == 2
    assert "no map: a map needs rows that differ in two numbers" in said.err
