"""The command line as people and scripts meet it: output, exit codes, one clear message for a wrong request."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from bascule.cli import main
from bascule.data.download import Remote
from bascule.data.mnist import Mnist

STUDY = """\
title: Tiny
base:
  data: {name: digits, max_train: 200, max_test: 40}
  poison: {trigger: sticker, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1, batch_size: 50}
  attack: {name: fgsm, eps: 0.1}
rows:
  None: {}
  Adv. training:
    train: {objective: {name: pgd, eps: 0.1, steps: 1}}
"""


@dataclass
class Said:
    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def bascule(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command in an empty folder without data sets; gives exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BASCULE_DATA", raising=False)

    def call(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["bascule", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY)
    return path


def test_run_table_and_report(bascule: Command, study: Path, tmp_path: Path) -> None:
    said = bascule("run", str(study))
    assert said.code == 0
    assert "Adv. training" in said.out
    assert "4 cells, 0 of them done before" in said.out
    again = bascule("run", str(study))
    assert "4 cells, 4 of them done before" in again.out
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


def ended(said: Said) -> list[str]:
    """What was said on standard error, without the lines that a busy machine brings after a minute."""
    return [line for line in said.err.splitlines() if " cells done; " not in line]


def test_without_a_terminal_there_is_a_plain_line_for_each_cell(bascule: Command, study: Path) -> None:
    lines = ended(bascule("run", str(study)))
    cells = ("None · seed 0", "None · seed 0 · twin", "Adv. training · seed 0", "Adv. training · seed 0 · twin")
    assert len(lines) == len(cells)
    for number, (cell, line) in enumerate(zip(cells, lines, strict=True), start=1):
        assert re.fullmatch(rf"bascule: {number} of 4 cells: {re.escape(cell)}: \d+\.\d s", line)
    more = ended(bascule("evaluate", "tiny", "--attack", "{name: pgd, eps: 0.2, steps: 1}"))
    assert [line.partition(":")[2].partition(":")[0] for line in more] == [" 1 of 2 cells", " 2 of 2 cells"]


def test_a_terminal_gets_a_table_that_fits(bascule: Command, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_several_runs_stand_in_one_table_and_one_report(bascule: Command, study: Path, tmp_path: Path) -> None:
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


def test_a_run_keeps_its_report_current(bascule: Command, study: Path, tmp_path: Path) -> None:
    said = bascule("run", str(study), "--set", "twin=false", "--report")
    assert (said.code, len(ended(said))) == (0, 2)  # one for each cell, no warning
    assert said.out.endswith("Report: runs/tiny/report.html\n")
    page = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    assert "Finished: 2 models trained and evaluated." in page
    assert "data-every" not in page
    bascule("run", str(study), "--set", "twin=false", "--runs", "quiet")
    assert not (tmp_path / "quiet" / "tiny" / "report.html").exists()


def test_a_report_that_cannot_be_written_is_a_warning_and_the_run_goes_on(
    bascule: Command, study: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "tiny" / "report.html").mkdir(parents=True)
    said = bascule("run", str(study), "--set", "twin=false", "--report")
    assert said.code == 0
    assert "Adv. training" in said.out
    (warning,) = (line for line in said.err.splitlines() if "warning" in line)
    assert warning.startswith("bascule: warning: the report runs/tiny/report.html was not written: ")


def test_a_failed_cell_is_exit_code_1_and_named(bascule: Command, study: Path) -> None:
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
    "a flag for a number": (change("rate: 0.5", "rate: yes"), "got True"),
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
def test_a_wrong_study_is_one_message_and_exit_code_2(bascule: Command, study: Path, tmp_path: Path, case: str) -> None:
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


def test_corrupt_data_are_one_message_and_exit_code_2(bascule: Command, study: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "digitz"], "unknown study 'digitz'. Did you mean 'digits'?"),
        (["run", "nowhere.yaml"], "cannot read the study 'nowhere.yaml'"),
        (["run", "digits", "--set", "train.epochs"], "expected key=value"),
        (["run", "digits", "--set", "train={epochs"], "bascule: --set train: cannot read the value"),
        (["run", "digits", "--set", "attack=pdg"], "bascule: --set attack: in row 'None': attack[0]: unknown attack"),
        (
            ["run", "digits", "--set", "attack+=pdg"],
            "bascule: --set attack+=: in row 'None': unknown attack name 'pdg'",
        ),
        (["run", "digits", "--set", "measure+=pdg"], "bascule: --set measure+=: unknown measure name 'pdg'"),
        (["run", "digits", "--set", "measure=pdg"], "bascule: --set measure: unknown measure name 'pdg'"),
        (["run", "digits", "--set", "seeds=none"], "bascule: --set seeds: must be "),
        (["run", "digits", "--set", "seeds=[1, 1]"], "bascule: --set seeds: expected 1 to 1000 different seeds"),
        (["run", "digits", "--set", "twin=3"], "bascule: --set twin: must be true or false"),
        (["run", "digits", "--set", "vary.train.lr=3"], "bascule: --set vary.train.lr: expected a list of values"),
        (["run", "digits", "--set", "vary.train.lr=[a]"], "bascule: --set vary.train.lr: in row 'None' with train.lr"),
        (["run", "digits", "--set", "rows.None.train.lr=-1"], "bascule: --set rows.None.train.lr: in row 'None': "),
        (["validate", "study.txt"], "bascule: 'study.txt': the name of a study file ends in .yaml or .yml"),
        (["run", "digits", "--device", "gpu"], "allowed are auto, cpu, cuda and cuda:N"),
        (["table", "digits"], "There are no runs in runs"),
        (["report", "digits"], "There are no runs in runs"),
        (["data", "get", "mnits"], "unknown data name 'mnits'. Did you mean 'mnist'?"),
        (["data", "get", "folder"], "data/folder reads files that you have; cifar10 and mnist can be downloaded"),
        (["export", "digits"], "There are no runs in runs"),
        (["ls", "atack"], "unknown kind 'atack'. Did you mean 'attack'?"),
        (["show", "attack/pdg"], "unknown attack name 'pdg'. Did you mean 'pgd'?"),
        (["show", "pgd"], "expected KIND/NAME"),
        (["show", "studies/digit"], "Did you mean 'digits'?"),
    ],
)
def test_wrong_words_are_exit_code_2(bascule: Command, words: list[str], expected: str) -> None:
    said = bascule(*words)
    assert said.code == 2
    assert expected in said.err


@pytest.mark.parametrize(
    "words", [["run"], ["run", "digits", "--sede", "3"], ["run", "digits", "--seeds", "0"], ["fly"]]
)
def test_wrong_options_are_exit_code_2(bascule: Command, words: list[str]) -> None:
    assert bascule(*words).code == 2


def test_listing_and_showing(bascule: Command) -> None:
    assert re.search(r"^attack +evasion attacks: .*fgsm.*pgd", bascule("ls").out, re.MULTILINE)
    assert re.search(r"^attack/pgd +Projected gradient descent", bascule("ls", "attack").out, re.MULTILINE)
    assert re.search(r"^mnist-quick +The trade-off", bascule("ls", "studies").out, re.MULTILINE)
    shown = bascule("show", "poison/sticker").out
    assert "size (default 3): whole number, at least 1\n      Side of the patch in pixels." in shown
    assert "\n  eps (required): number, at least 0\n" in bascule("show", "attack/pgd").out
    assert (
        bascule("show", "models/torchvision:resnet18").out.splitlines()[1:]
        == (bascule("show", "models/torchvision").out.splitlines()[1:])
    )
    assert "title: Hardened digits" in bascule("show", "studies/digits").out


OWN = """
from typing import Annotated
from annotated_types import Gt
from bascule.core.catalog import component
from bascule.poison import Trigger

@component
class Stripes(Trigger):
    \"\"\"Every second row brighter.\"\"\"
    strength: Annotated[float, Gt(0)] | None = None
    \"\"\"How much.\"\"\"
    def stamp(self, x, *, generator):
        return x

def net(size, classes): ...
"""


def test_a_component_of_ones_own_is_shown(bascule: Command, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "stripes.py").write_text(OWN)
    for name in ("own/stripes.py:Stripes", "poison/own/stripes.py:Stripes"):
        said = bascule("show", name)
        assert said.code == 0, said.err
        assert said.out == (
            f"{name}\n\nEvery second row brighter.\n\nsettings:\n"
            "  strength (default null): number, above 0, or null\n      How much.\n"
        )
    for name, expected in (
        ("own/stripes.py:net", "'own/stripes.py:net' is no component, so that it has no settings to show"),
        ("attack/own/stripes.py:Stripes", "'own/stripes.py:Stripes' is not a component of 'attack'"),
        ("own/stripes.py:Strips", "Did you mean 'Stripes'?"),
        ("own/nothing.py:Stripes", "no file"),
    ):
        said = bascule("show", name)
        assert (said.code, said.out) == (2, "")
        assert expected in said.err


def test_validate_says_what_would_be_done(bascule: Command, tmp_path: Path) -> None:
    said = bascule("validate", "digits", "--seeds", "2")
    assert "2 rows, 8 models to train (twins included), 24 evaluations" in said.out
    assert not (tmp_path / "runs").exists()


def test_getting_data(bascule: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bascule("data", "get", "digits").out == "data/digits needs no files\n"
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "part").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    part = Remote(path="MNIST/raw/part", places=("http://127.0.0.1:9",), sha256=digest, size=3)
    monkeypatch.setattr(Mnist, "remote", (part,))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    said = bascule("data", "get", "mnist", "--from", (tmp_path / "web").as_uri())
    assert said.code == 0
    assert (tmp_path / "home/.cache/bascule/MNIST/raw/part").read_bytes() == b"abc"
    assert said.out.endswith(f"data/mnist is in {tmp_path}/home/.cache/bascule\n")
    there = bascule("data", "get", "mnist", "--data-dir", "elsewhere")
    assert there.code == 2
    assert "cannot get part: http://127.0.0.1:9/part: no connection" in there.err
    assert len(there.err.splitlines()) == 1


def test_more_is_asked_of_a_finished_run(bascule: Command, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    assert bascule("run", "tiny.yaml", "--set", "twin=false").code == 0
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


def test_help_names_every_command(bascule: Command) -> None:
    said = bascule("--help")
    assert said.code == 0
    for command in ("run", "evaluate", "table", "report", "export", "ls", "show", "validate", "data"):
        assert re.search(rf"\b{command}\b", said.out)


def test_help_says_what_to_write(bascule: Command) -> None:
    for command in (["run"], ["evaluate"], ["table"], ["export"], ["scan"], ["repair"], ["data", "get"]):
        said = bascule(*command, "--help").out
        assert not re.search(r"<(path|int|float|list|str)\b[^>]*>", said.partition("Options")[2])
    assert re.search(r"--runs +FOLDER ", said := bascule("table", "--help").out)
    assert "text|json|csv" in said


def test_the_version(bascule: Command) -> None:
    said = bascule("--version")
    assert said.code == 0
    assert re.fullmatch(r"bascule \d+\.\d+\.\d+\S*\n", said.out)


def test_a_study_file_has_the_ending_of_one(bascule: Command, study: Path, tmp_path: Path) -> None:
    study.rename(tmp_path / "tiny")
    assert bascule("validate", "tiny").err == "bascule: 'tiny': the name of a study file ends in .yaml or .yml\n"
    (tmp_path / "tiny").rename(tmp_path / "tiny.yml")
    assert bascule("validate", "tiny.yml").code == 0


def test_a_name_without_its_kind(bascule: Command) -> None:
    assert "Did you mean attack/pgd or train/pgd?" in bascule("show", "pgd").err
    assert "Did you mean data/digits or studies/digits?" in bascule("show", "digits").err
    assert "Did you mean" not in bascule("show", "nothing").err
    assert bascule("show", "attack").out == bascule("ls", "attack").out


def test_output_that_cannot_be_written_is_one_message(bascule: Command, study: Path, tmp_path: Path) -> None:
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


def test_pictures_beside_the_study_are_found(bascule: Command, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "pictures" / split / label).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"pictures/{split}/{label}/{number}.png")
    own = STUDY.replace("{name: digits, max_train: 200, max_test: 40}", "{name: folder, path: pictures}")
    (tmp_path / "own.yaml").write_text(own.replace("target: 7", "target: 1"))
    said = bascule("validate", "own.yaml")
    assert said.code == 0, said.err
