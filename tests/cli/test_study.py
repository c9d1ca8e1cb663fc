"""Studies from the command line: run, checked, asked for more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def ended(said: Any) -> list[str]:
    """What was said on standard error, without the lines that a busy machine brings after a minute."""
    return [line for line in said.err.splitlines() if " cells done; " not in line]


def test_without_a_terminal_there_is_a_plain_line_for_each_cell(bascule: Callable, study: Path) -> None:
    lines = ended(bascule("run", str(study)))
    cells = ("None · seed 0", "None · seed 0 · twin", "Adv. training · seed 0", "Adv. training · seed 0 · twin")
    assert len(lines) == len(cells)
    for number, (cell, line) in enumerate(zip(cells, lines, strict=True), start=1):
        assert re.fullmatch(rf"bascule: {number} of 4 cells: {re.escape(cell)}: \d+\.\d s", line)
    more = ended(bascule("evaluate", "tiny", "--attack", "{name: pgd, eps: 0.2, steps: 1}"))
    assert [line.partition(":")[2].partition(":")[0] for line in more] == [" 1 of 2 cells", " 2 of 2 cells"]


def test_a_run_keeps_its_report_current(bascule: Callable, study: Path, tmp_path: Path) -> None:
    said = bascule("run", str(study), "--set", "twin=false", "--report")
    assert (said.code, len(ended(said))) == (0, 2)  # one for each cell, no warning
    assert said.out.endswith("Report: runs/tiny/report.html\n")
    page = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    assert "Finished: 2 models trained and evaluated." in page
    assert "data-every" not in page
    bascule("run", str(study), "--set", "twin=false", "--runs", "quiet")
    assert not (tmp_path / "quiet" / "tiny" / "report.html").exists()


def test_a_report_that_cannot_be_written_is_a_warning_and_the_run_goes_on(
    bascule: Callable, study: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "tiny" / "report.html").mkdir(parents=True)
    said = bascule("run", str(study), "--set", "twin=false", "--report")
    assert said.code == 0
    assert "Adv. training" in said.out
    (warning,) = (line for line in said.err.splitlines() if "warning" in line)
    assert warning.startswith("bascule: warning: the report runs/tiny/report.html was not written: ")


def test_a_failed_cell_is_exit_code_1_and_named(bascule: Callable, study: Path) -> None:
    said = bascule(
        "run", str(study), "--set", "rows.None.train.lr=1e30", "--set", "twin=false", "--set", "train.epochs=2"
    )
    assert said.code == 1
    assert re.search(r"1 of 2 cells: None · seed 0: failed after \d+\.\d s: training diverged at step", said.err)
    assert "bascule: failed: None · seed 0: training diverged at step" in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    row = json.loads(bascule("table", "tiny", "--format", "json").out)[1]
    assert row["metrics"]["accuracy"]["value"] is not None


def change(old: str, new: str) -> Callable[[str], str]:
    def apply(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return apply


WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "typo in a top key": (change("rows:", "row:"), "line 8: row: unknown key 'row'. Did you mean 'rows'?"),
    "typo in a setting": (
        change("epochs:", "epcohs:"),
        "line 6: base.train: unknown key 'epcohs'. Did you mean 'epochs'?",
    ),
    "typo in a nested setting": (change("steps: 1", "step: 1"), "unknown key 'step'"),
    "unknown data": (change("digits,", "digit,"), "unknown data name 'digit'. Did you mean 'digits'?"),
    "unknown trigger": (change("sticker", "stiker"), "unknown poison name 'stiker'. Did you mean 'sticker'?"),
    "unknown model": (change("digits-cnn", "resnet"), "unknown models name 'resnet'"),
    "unknown attack": (change("fgsm", "fsgm"), "Did you mean 'fgsm'?"),
    "wrong type": (change("epochs: 1", "epochs: many"), "must be a valid integer; got 'many'"),
    "a flag for a number": (change("rate: 0.5", "rate: true"), "got True"),
    "negative eps": (change("eps: 0.1}", "eps: -0.1}"), "must be greater than or equal to 0; got -0.1"),
    "infinite eps": (change("eps: 0.1}", "eps: .inf}"), "finite"),
    "rate above one": (change("rate: 0.5", "rate: 1.5"), "must be less than or equal to 1; got 1.5"),
    "rate too large for the class": (change("rate_of: target", "rate_of: all"), "The largest possible rate is 0."),
    "no such class": (change("target: 7", "target: 70"), "there is no class 70; the classes are 0..9"),
    "missing setting": (change("epochs: 1, ", ""), "the key 'epochs' is missing"),
    "missing data": (change("{name: digits, max_train: 200, max_test: 40}", "mnist"), "or run: bascule data get mnist"),
    "trigger that does not fit": (change("trigger: sticker", "trigger: channel"), "needs colour images"),
    "duplicate row": (lambda text: text + "  None: {}\n", "line 12: rows.None stands twice; first in line 9"),
    "two rows with equal settings": (lambda text: text + "  Other: {}\n", "is the same as row 'None'"),
    "no rows": (lambda text: text[: text.index("rows:")], "a study needs at least one row"),
    "no YAML": (lambda text: text + "  - [", "not valid YAML"),
    "empty file": (lambda text: "", "a study is a mapping"),
    "user's file is missing": (change("digits-cnn", "nets.py:net"), "nets.py"),
    "seeds": (lambda text: text + "seeds: -2\n", "seeds: must be greater than or equal to 1; got -2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_study_is_one_message_and_exit_code_2(
    bascule: Callable, study: Path, tmp_path: Path, case: str
) -> None:
    edit, expected = WRONG[case]
    study.write_text(edit(study.read_text()))
    for command in ("run", "validate"):
        said = bascule(command, str(study))
        assert said.code == 2
        assert said.out == ""
        assert said.err.startswith("bascule: ")
        assert expected in said.err
        assert len(said.err.splitlines()) == 1
        assert "Traceback" not in said.err
    assert not (tmp_path / "runs").exists()


def test_corrupt_data_are_one_message_and_exit_code_2(bascule: Callable, study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        labels = bytes([0, 0, 8, 1, 0, 0, 0, 20]) + bytes(range(10)) * 2
        images = bytes([0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 8, 0, 0, 0, 8]) + bytes(20 * 64 - 1)  # one byte short
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
    study.write_text(study.read_text().replace("{name: digits, max_train: 200, max_test: 40}", "mnist"))
    said = bascule("run", str(study))
    assert said.code == 2
    assert re.search(r"train-images-idx3-ubyte", said.err)
    assert len(said.err.splitlines()) == 1


def test_validate_says_what_would_be_done(bascule: Callable, tmp_path: Path) -> None:
    said = bascule("validate", "digits", "--seeds", "2")
    assert "2 rows, 8 models to train (twins included), 24 evaluations" in said.out
    assert not (tmp_path / "runs").exists()


def test_a_study_file_has_the_ending_of_one(bascule: Callable, study: Path, tmp_path: Path) -> None:
    study.rename(tmp_path / "tiny")
    assert bascule("validate", "tiny").err == "bascule: 'tiny': the name of a study file ends in .yaml or .yml\n"
    (tmp_path / "tiny").rename(tmp_path / "tiny.yml")
    assert bascule("validate", "tiny.yml").code == 0


def test_pictures_beside_the_study_are_found(bascule: Callable, study: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "pictures" / split / label).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"pictures/{split}/{label}/{number}.png")
    own = study.read_text().replace("{name: digits, max_train: 200, max_test: 40}", "{name: folder, path: pictures}")
    (tmp_path / "own.yaml").write_text(own.replace("target: 7", "target: 1"))
    said = bascule("validate", "own.yaml")
    assert said.code == 0, said.err


def test_more_is_asked_of_a_finished_run(bascule: Callable, study: Path, tmp_path: Path) -> None:
    assert bascule("run", str(study), "--set", "twin=false").code == 0
    models = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/tiny/cells/*/model.safetensors")}
    said = bascule("evaluate", "tiny", "--attack", "pgd", "--curve", "0.05,0.2", "--measure", "drift")
    assert said.code == 0
    assert "Drift to target" in said.out
    rows = json.loads(bascule("table", "tiny", "--format", "json").out)
    assert [[point["eps"] for point in row["curve"]] for row in rows] == [[0.0, 0.05, 0.1, 0.2]] * 2
    plan = json.loads((tmp_path / "runs/tiny/study.json").read_text())
    attacks = plan["rows"][0]["settings"]["attack"]
    assert [(attack["name"], attack["eps"], attack["norm"]) for attack in attacks] == [
        ("fgsm", 0.1, "linf"),
        ("pgd", 0.1, "linf"),
    ]
    assert {path: path.stat().st_mtime_ns for path in models} == models
    for words, expected in (
        (["--attack", "pdg"], "--attack: in row 'None': unknown attack name 'pdg'. Did you mean 'pgd'?"),
        (["--attack", "{name: pgd, eps: -1}"], "--attack: in row 'None': eps: must be greater than or equal to 0"),
        (["--attack", "{name: pgd"], "--attack: cannot read the value '{name: pgd': "),
        (["--certify", "boxes"], "--certify: in row 'None': unknown certify name 'boxes'."),
        (["--curve", "0.1,-2"], "--curve: in row 'None': must be greater than or equal to 0; got -2"),
        (["--measure", "acuracy"], "--measure: unknown measure name 'acuracy'. Did you mean 'accuracy'?"),
    ):
        refused = bascule("evaluate", "tiny", *words)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith(f"bascule: {expected}")


def test_a_part_says_what_is_done_of_it_and_of_the_run(bascule: Callable, study: Path) -> None:
    whole = ("run", str(study), "--runs", "whole")
    assert bascule(*whole).code == 0
    first = bascule("run", str(study), "--part", "1/3")
    assert (first.code, len(ended(first))) == (0, 2)
    assert "runs/tiny: part 1 of 3: 2 of 2 models done; 2 of 4 models of the whole run.\n" in first.out
    assert "Adv. training" in first.out
    for number in (2, 3):
        said = bascule("run", str(study), "--part", f"{number}/3")
        assert f"part {number} of 3: 1 of 1 model done; {number + 1} of 4 models of the whole run.\n" in said.out
    tables = [bascule("table", "tiny", "--runs", runs, "--format", "json").out for runs in ("runs", "whole")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0"])
def test_a_part_that_is_not_there_is_refused(text: str, bascule: Callable, study: Path, tmp_path: Path) -> None:
    said = bascule("run", str(study), "--part", text)
    number, of = text.split("/")
    assert (said.code, said.err) == (
        2,
        f"bascule: --part: expected I of N with I from 1 to N, got {number} of {of}; where an index begins at 0, add 1 "
        "to it\n",
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["", "3", "a/3", "-1/3", "1/3/5", "\u00b2/3", "1.0/3"])
def test_what_is_no_part_is_one_clear_message(text: str, bascule: Callable, study: Path, tmp_path: Path) -> None:
    said = bascule("run", str(study), f"--part={text}")
    assert said.code == 2
    assert said.err == f"bascule: --part: expected I/N with I from 1 to N, for example 2/4; got {text!r}\n"
    assert not (tmp_path / "runs").exists()
