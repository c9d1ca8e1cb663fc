"""The gate: exit codes, what is printed, files for other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from records import PAIR, record_of

METRIC = """
from bascule.core.catalog import component
from bascule.metrics.contract import Metric


@component
class Sevens(Metric):
    title, better = "Sevens", "lower"

    def per_sample(self, outcomes):
        return outcomes.clean == 7
"""


@pytest.fixture
def run(tmp_path: Path) -> str:
    """None: ASR 10 %. Adv. training: ASR 60 %."""
    record_of(tmp_path / "runs" / "tiny", PAIR)
    return "tiny"


def test_what_holds_is_0_and_what_does_not_is_3(bascule: Callable, run: str) -> None:
    good = bascule("check", run, "asr.high < 20 %", "accuracy.low > 0.8", "--row", "None")
    assert good.code == 0
    assert "pass  None: asr.high < 20 %: 15.3 % (asr 10.0 %, 95 % interval 6.4" in good.out
    assert good.out.endswith("\n2 passed.\n")
    bad = bascule("check", run, "asr.high < 20 %")
    assert bad.code == 3
    assert "FAIL  Adv. training: asr.high < 20 %: 66.9 % (asr 60.0 %, 95 % interval 52.7" in bad.out
    assert bad.out.endswith("\n1 failed, 1 passed.\n")


@pytest.mark.parametrize("form", ["junit", "json"])
@pytest.mark.parametrize(("bound", "code"), [(0.2, 0), (0.1, 3)])
def test_files_are_written_whatever_comes_of_it(
    bascule: Callable, run: str, form: str, bound: float, code: int
) -> None:
    path = Path("out") / f"gate.{form}"
    assert bascule("check", run, f"asr.high < {bound}", "--row", "None", f"--{form}", str(path)).code == code
    if form == "json":
        assert json.loads(path.read_text())["holds"] is (code == 0)
    else:
        assert ElementTree.parse(path).getroot()[0].attrib["failures"] == str(int(code == 3))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny"], "Missing argument"),
        (["tiny", "asx < 0.1"], "unknown metric 'asx'. Did you mean 'asr'?"),
        (["tiny", "asr < 5"], "'asr < 5': a share lies in 0..1, or 0..100 %: write 0.05 or 5 %"),
        (["tiny", "asr"], "bascule: 'asr': expected a metric, METRIC.low or METRIC.high"),
        (["tiny", "asr < 0.1", "--row", "Nine"], "bascule: --row: unknown row 'Nine'. Did you mean 'None'?"),
        (["nothing", "asr < 0.1"], "no run 'nothing'"),
        (["tiny", "asr < 0.1", "--attack", "fgsm"], "bascule: --attack: runs/tiny is a run, which has its own"),
        (["tiny", "asr < 0.1", "--max-images", "3"], "bascule: --max-images: runs/tiny is a run"),
        (["tiny", "asr < 0.1", "--measure", "drift"], "bascule: --measure: runs/tiny is a run, which has its own"),
        (["tiny", "asr < 0.1", "--attack-precision", "mixed"], "bascule: --attack-precision: runs/tiny is a run"),
        (["tiny", "drift < 0.1"], "'drift < 0.1': drift is not measured in this run. Add drift to `measure:`"),
        (["tiny", "asr < 0.1", "--junit", "runs"], "bascule: --junit runs is a folder; give the name of a file in it"),
    ],
)
def test_a_wrong_request_is_2_and_writes_nothing(bascule: Callable, run: str, words: list[str], said: str) -> None:
    done = bascule("check", *words, "--json", "new/gate.json")
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not Path("new").exists()


def test_one_model_is_measured_and_checked(bascule: Callable, study: Path) -> None:
    assert bascule("run", str(study), "--set", "twin=false").code == 0
    cell = str(next(Path("runs/tiny/cells").iterdir()))
    found = json.loads(bascule("evaluate", cell, "--format", "json").out)["metrics"]
    low = found["accuracy"]["low"]
    assert bascule("check", cell, f"accuracy.low >= {low!r}", "triggered-robust-accuracy >= 0").code == 0
    Path("own.py").write_text(METRIC)
    words = ["--measure", "drift", "--attack-precision", "mixed", "--json", "gate.json"]
    assert bascule("check", cell, "own.py:Sevens < 50 %", "asr >= 0", *words).code == 0
    assert {"own.py:Sevens", "asr", "drift"} <= json.loads(Path("gate.json").read_text())["metrics"].keys()
    failed = bascule("check", cell, f"accuracy.low > {low!r}", "asr.high <= 1")
    assert failed.code == 3
    assert failed.out.endswith("\n1 failed, 1 passed.\n")
    for words, said in (
        (["accuracy > 0", "certified_accuracy >= 0"], "certified_accuracy cannot be measured without --certify"),
        (["scan_anomaly < 2"], "scan_anomaly is made from what a study asks"),
        (["asr_undetected < 2 %"], "asr_undetected is made from what a study asks"),
        (["asx < 0.5"], "unknown measure name 'asx'. Did you mean 'asr'?"),
        (["asr < 5"], "write 0.05 or 5 %"),
        (["asr < 0.5", "--row", "None"], "--row: "),
    ):
        wrong = bascule("check", cell, *words)
        assert (wrong.code, wrong.out) == (2, "")
        assert said in wrong.err


def test_what_a_model_is_not_measured_with_is_refused_before(bascule: Callable, study: Path) -> None:
    assert bascule("run", str(study), "--set", "twin=false").code == 0
    file = str(next(Path("runs/tiny/cells").glob("*/model.safetensors")))
    cell = json.loads((Path(file).parent / "cell.json").read_text())["settings"]
    of = ["--model", json.dumps(cell["model"]), "--data", json.dumps(cell["data"])]
    for words, missing in (
        (["asr < 5 %"], "asr cannot be measured without --trigger and --target: give them"),
        (["asr < 5 %", "--target", "3"], "asr cannot be measured without --trigger: give it"),
        (["robust_accuracy > 5 %"], "robust_accuracy cannot be measured without --attack"),
        (["accuracy > 0", "--measure", "drift"], "drift cannot be measured without --attack and --target"),
    ):
        done = bascule("check", file, *words, *of)
        assert (done.code, done.out) == (2, "")
        assert f"bascule: {missing}" in done.err
    assert "without --trigger and --target" in bascule("evaluate", file, *of, "--measure", "asr").err


def test_a_file_of_weights_that_is_not_there_is_named(bascule: Callable) -> None:
    for words in (["nosuch.pth"], ["nosuch", "--model", "resnet18"], ["nosuch", "--data", "digits"]):
        for command in (["evaluate", *words], ["check", words[0], "accuracy > 0", *words[1:]]):
            done = bascule(*command)
            assert (done.code, done.out) == (2, "")
            assert f"{words[0]}: there is no such file of weights, nor a run of that name in runs" in done.err
