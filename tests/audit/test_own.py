"""A model of one's own: filtered, scanned and repaired from the command line."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from typer.testing import CliRunner

from bascule.cli import app
from bascule.core.errors import RequestError
from bascule.record.run import RunRecord

run = CliRunner()


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory, plan_of, run_here) -> Path:
    """The folder of a cell with a strong backdoor: dirty labels, a tenth of the digits."""
    record = RunRecord(tmp_path_factory.mktemp("own"))
    change = ["poison.label=dirty", "poison.rate=0.1", "poison.rate_of=all", "data.max_train=900", "data.max_test=200"]
    plan = plan_of(*change, "train.epochs=8", "twin=false", "rows.Adv. training.train.epochs=1", seeds=1)
    assert run_here(plan, record).failures == ()
    return record.cell(plan.rows[0].cells[0].fingerprint).path


def said(*words: object) -> str:
    done = run.invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refused(*words: object) -> str:
    done = run.invoke(app, [str(word) for word in words])
    assert isinstance(done.exception, RequestError), done.output
    return str(done.exception)


def test_a_ranking_and_a_contact_sheet(cell: Path, tmp_path: Path) -> None:
    output = said("filter", cell, "--with", "spectral-signatures", "--output", tmp_path / "out")
    with (tmp_path / "out/suspicion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 900
    assert [int(row["rank"]) for row in rows] == list(range(1, 901))
    scores = [float(row["suspicion"]) for row in rows]
    assert sorted(scores, reverse=True) == scores
    removed = sum(int(row["removed"]) for row in rows)
    assert f"its rule would remove {removed}" in output
    assert len({row["id"] for row in rows}) == 900
    with Image.open(tmp_path / "out/suspicion.png") as sheet:
        assert sheet.size == (12 * 66, 4 * 66)


def test_files_are_named(tmp_path: Path, cell: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "set" / split / label
            folder.mkdir(parents=True)
            for number in range(12):
                noise = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{number:02}.png")
    from bascule.core.catalog import build

    net = build("models", {"name": "digits-cnn", "width": 2, "hidden": 4}).initialised((1, 8, 8), 2, seed=0)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    data = f"{{name: folder, path: {tmp_path / 'set'}, channels: 1}}"
    said(
        "filter", tmp_path / "net.pt", "--model", "{name: digits-cnn, width: 2, hidden: 4}", "--data", data,
        "--with", "spectral-signatures", "--output", tmp_path,
    )  # fmt: skip
    with (tmp_path / "suspicion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {str(path) for path in (tmp_path / "set/train").glob("*/*.png")}
    assert all(Path(row["file"]).parent.name == row["class"] for row in rows)


def test_a_scan_names_the_class(cell: Path, tmp_path: Path) -> None:
    output = said("scan", cell, "--images", 120, "--output", tmp_path)
    assert "backdoored: yes, towards class 7 (7)" in output
    assert len([line for line in output.splitlines() if "trigger moves" in line]) == 10
    with Image.open(tmp_path / "triggers.png") as sheet:
        assert sheet.size == (10 * 66, 66)


def test_a_repair_is_measured_on_both_ends(cell: Path, tmp_path: Path) -> None:
    file = tmp_path / "repaired.safetensors"
    method = "{name: unlearn, epochs: 5, scanner: {name: neural-cleanse, target: 7}}"
    asked = ["--attack", "{name: pgd, eps: 0.05, steps: 3}", "--trigger", "{name: sticker, size: 2}", "--target", 7]
    output = said("repair", cell, "--with", method, "--images", 120, "--output", file, *asked)
    ends = numbers(output)
    assert ends["ASR"][0] > 80
    assert ends["ASR"][1] < ends["ASR"][0] - 30
    assert ends["Accuracy"][1] > ends["Accuracy"][0] - 20
    for before, after, change in ends.values():
        assert change == pytest.approx(after - before, abs=0.11)
    assert "On 80 images that the repair did not see." in output
    before = safetensors.numpy.load_file(cell / "model.safetensors")
    after = safetensors.numpy.load_file(file)
    assert {name: value.shape for name, value in before.items()} == {name: value.shape for name, value in after.items()}
    # What was written is a model that can be looked at again.
    net = "{name: digits-cnn, width: 4, hidden: 16}"
    again = said("scan", file, "--model", net, "--data", "digits", "--images", 100, "--output", tmp_path)
    assert "anomaly index by class" in again


def numbers(output: str) -> dict[str, list[float]]:
    """By metric: before, after, change."""
    lines = re.findall(r"^ (\w[\w ]+) % [↑↓] +([\d.]+) +([\d.]+) +([+-][\d.]+)$", output, re.MULTILINE)
    return {name: [float(part) for part in parts] for name, *parts in lines}


def test_a_cell_says_itself_what_to_measure(cell: Path, tmp_path: Path) -> None:
    """Its own attack and trigger; a file of weights knows neither, and the answer says what is missing."""
    zero = ["--with", "{name: fine-tune, epochs: 0}", "--images", 120, "--output", tmp_path / "same.safetensors"]
    of_cell = numbers(said("repair", cell, *zero))
    assert list(of_cell) == ["Accuracy", "Robust accuracy", "ASR"]
    assert all(before == after and change == 0 for before, after, change in of_cell.values())
    asked = ["--attack", "{name: pgd, eps: 0.3, steps: 20, restarts: 2}", "--trigger", "{name: sticker, size: 2}"]
    assert of_cell["ASR"] == numbers(said("repair", cell, *zero, *asked))["ASR"]
    net = ["--model", "{name: digits-cnn, width: 4, hidden: 16}", "--data", "{name: digits, max_test: 200}"]
    output = said("repair", cell / "model.safetensors", *net, *zero)
    assert list(numbers(output)) == ["Accuracy"]
    assert "not measured: --attack\n" in output
    assert "not measured: --trigger, --target\n" in output


def test_what_the_model_is_worth_is_said_first(cell: Path, tmp_path: Path) -> None:
    for words in (["filter", cell], ["scan", cell, "--with", "mm-bd", "--images", 120]):
        first = said(*words, "--output", tmp_path).splitlines()[0]
        assert float(re.findall(r"^the model is right on ([\d.]+) % of (?:900|120) images", first)[0]) > 80


def test_a_scan_may_use_every_test_image(cell: Path, tmp_path: Path) -> None:
    output = said("scan", cell, "--with", "mm-bd", "--images", 1000, "--output", tmp_path)
    assert "% of 200 images" in output


def test_a_repair_is_measured_under_every_attack_of_the_cell(
    tmp_path_factory: pytest.TempPathFactory, plan_of, run_here, tmp_path: Path
) -> None:
    record = RunRecord(tmp_path_factory.mktemp("two"))
    attacks = "attack=[{name: fgsm, eps: 0.0}, {name: pgd, eps: 1.0, steps: 10}]"
    plan = plan_of("data.max_train=300", "data.max_test=60", "train.epochs=6", "twin=false", attacks, seeds=1)
    assert run_here(plan, record).failures == ()
    cell = record.cell(plan.rows[0].cells[0].fingerprint).path
    zero = ["--with", "{name: fine-tune, epochs: 0}", "--images", 20, "--output", tmp_path / "same.safetensors"]
    ends = numbers(said("repair", cell, *zero))
    assert ends["Accuracy"][0] > 50
    assert ends["Robust accuracy"][0] < 10


def test_nothing_is_done_where_nothing_can_be_written(
    cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bascule.audit.scan.run_scanner", None)
    monkeypatch.setattr("bascule.audit.repair.run_repair", None)
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "folder"
    asked = ["--with", "fine-tune", "--images", 100]
    assert f"cannot write to the folder {inside}" in refused("scan", cell, "--output", inside)
    assert f"cannot write to the folder {inside}" in refused("filter", cell, "--output", inside)
    assert f"cannot write to the folder {inside}" in refused(
        "repair", cell, *asked, "--output", inside / "x.safetensors"
    )
    assert "is a folder" in refused("repair", cell, *asked, "--output", tmp_path)
    asked += ["--output", tmp_path / "x.safetensors"]
    assert "--target: there is no class 10; the classes are 0..9" in refused("repair", cell, *asked, "--target", 10)
    assert "a 9 x 9 block" in refused("repair", cell, *asked, "--trigger", "{name: sticker, size: 9}", "--target", 1)
    assert "give NAME.safetensors" in refused("repair", cell, *asked[:-1], tmp_path / "x.pt")
    assert "--attack: the key 'eps' is missing" in refused("repair", cell, *asked, "--attack", "pgd")
    assert not list(tmp_path.glob(".writable*"))


def test_wrong_requests_are_refused(cell: Path, tmp_path: Path) -> None:
    weights = shutil.copy(cell / "model.safetensors", tmp_path)
    assert "say which data" in refused("scan", weights)
    assert "needs its architecture" in refused("scan", weights, "--data", "digits")
    (tmp_path / "empty").mkdir()
    assert "holds no trained model" in refused("scan", tmp_path / "empty", "--data", "digits")
    spare = ["--with", "fine-tune", "--output", tmp_path / "x"]
    assert "200 test images" in refused("repair", cell, "--images", 200, *spare)
    net = ["--model", "{name: digits-cnn, width: 4, hidden: 16}", "--data", "digits"]
    assert "name it with --target" in refused("repair", weights, *net, "--images", 90, "--trigger", "sticker", *spare)
    assert not (tmp_path / "x").exists()
    assert "Did you mean 'strip'" in refused("filter", cell, "--with", "stripp")
    assert "Did you mean 'fine-tune'" in refused("repair", cell, "--with", "fine-tunes", "--output", tmp_path / "x")


def test_messages_say_what_does_not_fit(cell: Path, tmp_path: Path) -> None:
    weights = shutil.copy(cell / "model.safetensors", tmp_path)
    net = ["--model", "{name: digits-cnn, width: 4, hidden: 16}"]
    assert "nowhere.pt does not exist" in refused("filter", tmp_path / "nowhere.pt", *net, "--data", "digits")
    assert "name: folder, path: " in refused("filter", weights, *net, "--data", tmp_path)
    assert str(cell) in refused("filter", cell.parent.parent)
    assert "File exists. Give another one" in refused("filter", cell, "--output", weights)
    # Two classes of ten: the file's last layer is another one, and a fresh one in its place would judge at random.
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "set" / split / label / "0.png")
    grey = f"{{name: folder, path: {tmp_path / 'set'}, channels: 1}}"
    message = refused("filter", weights, *net, "--data", grey)
    assert "(10, 16) instead of (2, 16)" in message
    assert "images of 1 x 8 x 8 (channels, height, width) in 2 classes" in message


def test_a_rule_that_cannot_act_is_said(cell: Path, tmp_path: Path) -> None:
    output = said("filter", cell, "--with", "{name: early-loss, share: 0.0001, epochs: 1}", "--output", tmp_path)
    assert "its rule would remove 0" in output
    assert "note: no image can be removed: a share of 0.0001 of 900 images is none" in output
