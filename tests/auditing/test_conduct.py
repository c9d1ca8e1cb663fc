"""An audit from the outside: what it proposes, runs, says and keeps; on digits, with small proposals."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bascule
from bascule.auditing.conduct import Prepared, conduct, judge, prepare
from bascule.auditing.propose import Wish
from bascule.cli import app
from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.core.images import Splits
from bascule.record.audited import AFTERWARDS, notes_of
from bascule.record.run import RunRecord
from bascule.report.audited.facts import Facts, facts_of
from bascule.report.audited.verdict import conclusion
from bascule.report.view import view_of

QUICK = Wish(minutes=0.001, images=40)
SCANNED = """\
  neural-cleanse: {attack: [], scan: {name: neural-cleanse, max_looks: 40}}
  universal-perturbation: {attack: [], scan: {name: universal-perturbation, max_looks: 30}}
"""


def prepared(model: Path, runs: Path, wish: Wish = QUICK, **given: Any) -> Prepared:
    return prepare(
        model, **{"data": None, "architecture": None, **given}, wish=wish, runs=runs, roots=[Path()],
        device=torch.device("cpu"),
    )  # fmt: skip


def facts(audit: Prepared) -> Facts:
    found = facts_of(view_of([audit.record]).runs[0])
    assert found is not None
    return found


def warn(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture(scope="module")
def network(cell: Path) -> dict[str, Any]:
    from bascule.record.cell import CellRecord

    return {key: value for key, value in CellRecord(cell).info()["settings"]["model"].items() if value is not None}


@pytest.fixture(scope="module")
def found(cell: Path, network: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The audit of a file with a strong backdoor, with two scanners put into its study by hand, and a repair."""
    folder = tmp_path_factory.mktemp("audits")
    weights = Path(shutil.copy(cell / "model.safetensors", folder / "a file.safetensors"))
    wish = Wish(minutes=0.001, images=60, repairs=({"name": "clp"},))
    audit = prepared(weights, folder / "runs", wish, data="digits", architecture=network)
    text = audit.study.read_text()
    audit.study.write_text(text.replace(AFTERWARDS, SCANNED + AFTERWARDS))
    assert judge(audit, changed=lambda: None, warn=warn)[0].failures == ()
    return audit


def test_the_proposal_says_why_and_what_it_leaves_out(cell: Path, tmp_path: Path) -> None:
    audit = prepared(cell, tmp_path)
    notes = notes_of(audit.study.read_text())
    assert notes is not None
    assert any("40 test images of" in reason and "as asked" in reason for reason in notes.reasons)
    assert any("the radius that its record was measured with" in reason for reason in notes.reasons)
    assert any(text.startswith("The scanner neural-cleanse: it would take about") for text in notes.left_out)
    assert any("Adaptive attacks" in text for text in notes.left_out)


def test_a_full_audit_takes_every_scanner_filter_and_autoattack(cell: Path, tmp_path: Path) -> None:
    text = prepared(cell, tmp_path, Wish(full=True)).study.read_text()
    for name in ("autoattack", "feature-inversion", "neural-cleanse", "mm-bd", "spectre", "strip", "two-component"):
        assert re.search(rf"(name: |scan: |inspect: ){name}\b", text), name
    assert "in the full set only" not in text


def test_what_scanners_name_is_tried_on_images_that_they_did_not_see(found: Prepared) -> None:
    said = facts(found)
    assert [scan.method for scan in said.scans] == ["neural-cleanse", "universal-perturbation"]
    assert [scan.suspects[:1] for scan in said.scans] == [(7,), (7,)]
    assert conclusion(said) == "suspicion"
    assert said.recovered is not None
    assert said.recovered.label == 7
    assert said.recovered.asr.value is not None
    assert said.recovered.asr.value > 0.9
    assert (said.recovered.size or 64) < 0.6 * (said.recovered.usual or 0)
    assert said.done
    assert said.planted is None  # the file tells nothing of it


def test_a_repair_is_measured_at_both_ends_with_the_recovered_trigger(found: Prepared) -> None:
    (repair,) = facts(found).repairs
    assert repair.name == "clp"
    assert repair.before.keys() == repair.after.keys() == {"accuracy", "robust_accuracy", "asr"}
    assert repair.ball is not None


def test_the_same_audit_again_does_nothing_anew(found: Prepared, cell: Path, network: dict[str, Any]) -> None:
    before = found.study.read_text()
    weights = found.record.path.parents[1] / "a file.safetensors"
    again = prepared(weights, found.record.path.parent, found.wish, data="digits", architecture=network)
    assert not again.new
    assert again.record.path == found.record.path
    assert conduct(again, changed=lambda: None, warn=warn).cells == 0
    assert found.study.read_text() == before


def test_an_audit_that_was_stopped_goes_on(found: Prepared) -> None:
    """Without the rows that the scanners led to, as after a kill between the two runs."""
    whole, before = found.study.read_text(), facts(found)
    found.study.write_text(whole.partition(AFTERWARDS)[0] + AFTERWARDS + "\n")
    said: list[str] = []
    assert conduct(found, changed=lambda: None, warn=said.append).failures == ()
    assert all("becomes another one" in text for text in said)  # the record knew of them, which it does after no kill
    assert found.study.read_text() == whole
    assert facts(found).recovered == before.recovered


def test_training_images_are_ranked(found: Prepared) -> None:
    with (found.record.path / "suspicion.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["rank"] for line in lines[:2]] == ["1", "2"]
    values = [float(line["suspicion"]) for line in lines]
    assert values == sorted(values, reverse=True)
    assert "spectral-signatures removed" in lines[0]
    assert (found.record.path / "suspicion.png").is_file()


def test_a_cells_own_record_tells_the_trigger(cell: Path, tmp_path: Path) -> None:
    audit = prepared(cell, tmp_path, Wish(minutes=0.001, images=40, trained_on_it=False))
    conduct(audit, changed=lambda: None, warn=warn)
    said = facts(audit)
    assert said.planted is not None
    assert said.planted.label == 7
    assert said.filters == ()
    assert any("said not to be what the model was trained on" in text for text in said.left_out)


@pytest.fixture
def searched(tmp_path: Path, plan_of, run_here) -> Path:
    """A cell whose trigger was searched for on a proxy."""
    record = RunRecord(tmp_path / "searched")
    plan = plan_of(
        "poison.trigger={name: low-frequency, steps: 2}", "poison.label=dirty", "train.epochs=1",
        "data.max_train=200", "data.max_test=60", "twin=false", seeds=1,
    )  # fmt: skip
    assert run_here(plan, record).failures == ()
    return record.cell(plan.rows[0].cells[0].fingerprint).path


def test_a_trigger_that_was_searched_for_is_tried_as_its_record_knows_it(searched: Path, tmp_path: Path) -> None:
    audit = prepared(searched, tmp_path / "runs", Wish(minutes=0.001, images=60, trained_on_it=False))
    text = audit.study.read_text()
    assert "trigger: {name: stamped, path: " in text
    assert "# - The training set as it was poisoned: that was done with another model" in text
    assert conduct(audit, changed=lambda: None, warn=warn).failures == ()
    said = facts(audit)
    assert said.recovered is None
    assert said.planted is not None
    assert said.planted.label == 7
    own = bascule.load("searched", runs=tmp_path)["None"]["asr"]
    assert (said.planted.asr.value, said.planted.asr.n) == (own.value, own.n)  # that of its run


def test_a_trigger_whose_search_lies_nowhere_is_said_not_to_be_tried(searched: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(searched, tmp_path / "alone"))
    text = prepared(alone, tmp_path / "runs", Wish(minutes=0.001, images=40)).study.read_text()
    assert "# - The trigger that its own record tells of: what its search found lies in no cell of its run" in text
    assert "stamped" not in text


@pytest.mark.filterwarnings("ignore:.*are the test set")
def test_data_without_a_test_split_set_some_aside(
    cell: Path, network: dict[str, Any], digits: Splits, tmp_path: Path
) -> None:
    part = digits.train.at(torch.arange(300))
    np.savez(tmp_path / "own.npz", x=part.pixels.permute(0, 2, 3, 1).numpy(), y=part.labels.numpy())
    weights = Path(shutil.copy(cell / "model.safetensors", tmp_path))
    data = {"name": "npz", "path": str(tmp_path / "own.npz")}
    audit = prepared(weights, tmp_path / "runs", Wish(minutes=0.001), data=data, architecture=network)
    text = audit.study.read_text()
    assert "test_share: 0.2" in text
    (said,) = re.findall(r"the data have no split, so (\d+) of the images were drawn for it; (.*)", text)
    assert 55 <= int(said[0]) <= 65
    assert "if the model was trained on all of these, it has seen them" in said[1]
    other = Wish(minutes=0.001, trained_on_it=False)
    text = prepared(weights, tmp_path / "runs", other, data=data, architecture=network).study.read_text()
    assert "the others serve scanners and repairs" in text
    assert "it has seen them" not in text
    given = {**data, "test_share": 0.5}
    text = prepared(weights, tmp_path / "runs", other, data=given, architecture=network).study.read_text()
    assert "have no split" not in text
    assert "test_share: 0.5" in text


def test_a_cell_is_asked_with_its_own_seed(tmp_path: Path, plan_of, run_here) -> None:
    record = RunRecord(tmp_path / "own")
    plan = plan_of("train.epochs=1", "data.max_train=200", "data.max_test=60", "twin=false", seeds=2)
    assert run_here(plan, record).failures == ()
    path = record.cell(plan.rows[0].cells[1].fingerprint).path
    audit = prepared(path, tmp_path / "runs", Wish(minutes=0.01, images=40))
    assert "seeds: [1]" in audit.study.read_text()


def test_paths_are_written_so_that_the_study_runs_from_anywhere(
    cell: Path, network: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(cell / "model.safetensors", tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    audit = prepared(Path("m.safetensors"), Path("runs"), data="digits", architecture=network)
    assert f"weights: {tmp_path}/m.safetensors" in audit.study.read_text()


# --- the command -----------------------------------------------------------------------------------------------------


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_the_command_says_its_verdict_and_exits_with_3(found: Prepared, network: dict[str, Any]) -> None:
    runs = found.record.path.parent
    words = ("audit", runs.parent / "a file.safetensors", "--data", "digits", "--model", str(network).replace("'", ""))
    code, output = call(*words, "--minutes", "0.001", "--images", "60", "--repair", "clp", "--runs", runs)
    assert code == 3
    assert "Suspicion of a backdoor towards class 7: 2 of 2 scanners name it." in output
    assert f"Report: {found.record.path / 'report.html'}" in output
    assert "Not looked at" in output
    page = (found.record.path / "report.html").read_text()
    assert "Suspicion of a backdoor towards class 7" in page
    assert 'id="verdict"' not in page  # "In short" would say it again


def test_without_a_scanner_the_exit_code_is_1(cell: Path, tmp_path: Path) -> None:
    code, output = call(
        "audit", cell, "--data", "digits", "--minutes", "0.001", "--images", "40", "--other-training-data", "--runs",
        tmp_path,
    )  # fmt: skip
    assert code == 1
    assert "Nothing has looked for a backdoor in this model." in output
    assert "no scanner has looked for a backdoor" in output


def test_images_alone_are_ranked_by_a_network_of_their_own(tmp_path: Path) -> None:
    words = ("audit", "--data", "{name: digits, max_train: 300}", "--minutes", "0.001", "--runs", tmp_path)
    code, output = call(*words)
    assert code == 0
    assert "nothing is said of any model" in output
    assert "Right on" not in output
    (ranking,) = tmp_path.glob("*/suspicion.csv")
    assert len(ranking.read_text().splitlines()) == 301
    assert (ranking.parent / "report.html").is_file()
    assert "(as it was)" in call(*words)[1]


@pytest.mark.filterwarnings("ignore:.*are the test set")
def test_images_without_a_test_split_are_ranked_but_for_a_few(tmp_path: Path, digits: Splits) -> None:
    part = digits.train.at(torch.arange(300))
    np.savez(tmp_path / "own.npz", x=part.pixels.permute(0, 2, 3, 1).numpy(), y=part.labels.numpy())
    code, output = call(
        "audit", "--data", f"{{name: npz, path: {tmp_path / 'own.npz'}}}", "--minutes", "0.001", "--runs",
        tmp_path / "runs",
    )  # fmt: skip
    assert code == 0, output
    (ranking,) = tmp_path.glob("runs/*/suspicion.csv")
    ranked = len(ranking.read_text().splitlines()) - 1
    assert 260 <= ranked < 280
    assert f"{300 - ranked} images that had to be set aside" in output


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "--data"),
        (["--data", "digits", "--repair", "clp"], "--repair: there is no model to repair"),
        (["--data", "digits", "--images", "9"], "--images: there is no model to try on test images"),
        (["CELL", "--full", "--minutes", "3"], "--minutes: the full set takes as long as it takes: leave this out"),
        (["no.pth", "--data", "digits"], "no.pth does not exist"),
        (["--data", "nothing"], "--data: unknown data name 'nothing'"),
        (["CELL", "--repair", "nothing"], "--repair: unknown repair name 'nothing'"),
        (["WEIGHTS", "--data", "digits"], "--model: a file of weights needs its architecture"),
        (["WEIGHTS", "--model", "digits-cnn"], "--data: say which data"),
    ],
)
def test_wrong_requests(
    words: list[str], problem: str, cell: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    places = {"CELL": str(cell), "WEIGHTS": str(cell / "model.safetensors")}
    filled = [places.get(word, word) for word in words]
    assert problem in refused("audit", *filled, "--runs", tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_a_study_that_was_edited_wrongly_is_refused_with_its_line(cell: Path, tmp_path: Path) -> None:
    audit = prepared(cell, tmp_path)
    audit.study.write_text(audit.study.read_text().replace("train: none", "train: nothing"))
    with pytest.raises(RequestError, match=r"audit-.*\.yaml, line \d+"):
        conduct(audit, changed=lambda: None, warn=warn)


# --- from Python -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(found: Prepared, network: dict[str, Any]) -> bascule.Audit:
    """What the function says of the audit that the command finds too: nothing is done anew."""
    runs = found.record.path.parent
    before = found.study.read_bytes()
    told = bascule.audit(
        runs.parent / "a file.safetensors", "digits", architecture=network, minutes=0.001, images=60, repair="clp",
        runs=runs, progress=False,
    )  # fmt: skip
    assert told.path == found.record.path
    assert found.study.read_bytes() == before
    return told


def test_python_is_told_the_verdict_of_the_command(told: bascule.Audit, found: Prepared) -> None:
    assert told.suspicious is True
    assert told.conclusion == "suspicion"
    assert told.exit_code == 3
    assert told.failed == {}
    assert told.study == found.study
    assert str(told.verdict) in str(told)
    assert told.run["as it is"]["accuracy"].value == pytest.approx(facts(found).accuracy.value)
    assert [path.name for path in told.files] == ["suspicion.csv", "suspicion.png"]


def test_a_notebook_shows_the_recovered_trigger_and_the_most_suspicious_images(told: bascule.Audit) -> None:
    text = told._repr_html_()
    assert "Suspicion of a backdoor towards class 7" in text
    assert "trigger recovered by neural-cleanse for class 7" in text
    assert text.count("<img ") == 3  # two scanners recover one, and the sheet
    assert len(text) < 200_000


def test_the_verdict_is_plain_values(told: bascule.Audit, found: Prepared, network: dict[str, Any]) -> None:
    plain = told.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert (plain["conclusion"], plain["suspicious"]) == ("suspicion", True)
    assert plain["headline"] == "Suspicion of a backdoor towards class 7: 2 of 2 scanners name it."
    said = plain["facts"]
    assert said["agreed_class"] == 7
    assert [scan["name"] for scan in said["scanners"]] == ["neural-cleanse", "universal-perturbation"]
    assert said["recovered_trigger"]["asr"]["value"] > 0.9
    assert said["repairs"][0]["before"].keys() == {"accuracy", "robust_accuracy", "asr"}
    assert said["not_looked_at"]
    runs = found.record.path.parent
    words = ("audit", runs.parent / "a file.safetensors", "--data", "digits", "--model", str(network).replace("'", ""))
    more = ("--minutes", "0.001", "--images", "60", "--repair", "clp", "--runs", runs, "--format", "json")
    done = CliRunner().invoke(app, [str(word) for word in (*words, *more)])
    assert done.exit_code == 3
    assert json.loads(done.stdout) == plain


def test_a_model_in_memory_is_audited_by_its_weights(found: Prepared, network: dict[str, Any], tmp_path: Path) -> None:
    model = build("models", network).initialised((1, 8, 8), 10, seed=0)
    asked = {"minutes": 0.001, "images": 40, "other_training_data": True, "runs": tmp_path, "progress": False}
    told = bascule.audit(model, "digits", architecture=network, **asked)
    assert told.suspicious is None  # nobody has looked
    assert told.exit_code == 1
    assert bascule.audit(model, "digits", architecture=build("models", network), **asked).path == told.path
    with pytest.raises(RequestError, match="architecture: an audit is kept and continued"):
        bascule.audit(model, "digits", **asked)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "give a model, or `data` alone"),
        ({"data": "digits", "repair": "clp"}, "repair: there is no model to repair"),
        ({"model": 3, "data": "digits"}, "model: the folder of a cell, a file of weights, or a torch.nn.Module; got 3"),
        ({"model": "no.pth", "data": "digits"}, "no.pth does not exist"),
        ({"data": "nothing"}, "data: unknown data name 'nothing'"),
        ({"model": "CELL", "repair": ["nothing"]}, "repair: unknown repair name 'nothing'"),
        ({"model": "CELL", "repair": 3}, "repair: a name or a mapping; got 3"),
        ({"model": "CELL", "minutes": 0}, "minutes: more than 0; got 0"),
        ({"model": "CELL", "images": "many"}, "images: expected a whole number, got 'many'"),
    ],
)
def test_wrong_requests_from_python(given: dict[str, Any], problem: str, cell: Path, tmp_path: Path) -> None:
    filled = {key: cell if value == "CELL" else value for key, value in given.items()}
    with pytest.raises(RequestError) as refused:
        bascule.audit(**filled, runs=tmp_path / "runs", progress=False)
    assert problem in str(refused.value)
    assert not list((tmp_path / "runs").glob("*"))
