"""Opening a trained model with its data."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bascule.attacks.fgsm import Fgsm
from bascule.auditing.open import AuditedModel, open_model, settings_for
from bascule.auditing.repair import repair_model
from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.data.digits import Digits
from bascule.record.run import RunRecord

NET = {"name": "digits-cnn", "width": 4, "hidden": 16}


def test_what_the_model_is_worth_is_said_first(said: Callable, cell: Path, tmp_path: Path) -> None:
    for words in (["filter", cell], ["scan", cell, "--with", "mm-bd", "--images", 120]):
        first = said(*words, "--output", tmp_path).splitlines()[0]
        assert float(re.findall(r"^the model is right on ([\d.]+) % of (?:900|120) images", first)[0]) > 80


def test_nothing_is_done_where_nothing_can_be_written(
    refused: Callable, cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bascule.auditing.scan.run_scanner", None)
    monkeypatch.setattr("bascule.auditing.repair.run_repair", None)
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


def test_wrong_requests_are_refused(refused: Callable, cell: Path, tmp_path: Path) -> None:
    weights = shutil.copy(cell / "model.safetensors", tmp_path)
    assert "say which data" in refused("scan", weights)
    assert "needs its architecture" in refused("scan", weights, "--data", "digits")
    (tmp_path / "empty").mkdir()
    assert "holds no trained model" in refused("scan", tmp_path / "empty", "--data", "digits")
    for file, said in {
        "net.pth": "a file of weights. It holds",
        "0.distcp": "a checkpoint by torch.distributed; write it as one file: python -m",
        "archive/data.pkl": "a file by torch.save that was unpacked",
    }.items():
        (tmp_path / "empty" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "empty" / file).write_bytes(b"")
        assert said in refused("scan", tmp_path / "empty", "--data", "digits")
        (tmp_path / "empty" / file).unlink()
    spare = ["--with", "fine-tune", "--output", tmp_path / "x"]
    assert "200 test images" in refused("repair", cell, "--images", 200, *spare)
    net = ["--model", "{name: digits-cnn, width: 4, hidden: 16}", "--data", "digits"]
    assert "name it with --target" in refused("repair", weights, *net, "--images", 90, "--trigger", "sticker", *spare)
    assert not (tmp_path / "x").exists()
    assert "Did you mean 'strip'" in refused("filter", cell, "--with", "stripp")
    assert "Did you mean 'fine-tune'" in refused("repair", cell, "--with", "fine-tunes", "--output", tmp_path / "x")


def test_messages_say_what_does_not_fit(refused: Callable, cell: Path, tmp_path: Path) -> None:
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
            Image.fromarray(np.full((8, 8), 9, dtype=np.uint8)).save(tmp_path / "set" / split / label / "0.png")
    grey = f"{{name: folder, path: {tmp_path / 'set'}, channels: 1}}"
    message = refused("filter", weights, *net, "--data", grey)
    assert "(10, 16) instead of (2, 16)" in message
    assert "images of 1 x 8 x 8 (channels, height, width) in 2 classes" in message


# --- from Python -----------------------------------------------------------------------------------------------------


def opened(path: Path, **given: object) -> AuditedModel:
    return open_model(path, device=torch.device("cpu"), roots=(), seed=0, **given)  # type: ignore[arg-type]


def test_a_cell_and_its_file_of_weights_are_one_model(cell: Path) -> None:
    of_cell = opened(cell)
    by_hand = opened(cell / "model.safetensors", data=Digits(max_train=900, max_test=200), model=NET)
    assert torch.equal(of_cell.test.labels, by_hand.test.labels)
    images = of_cell.test.to(of_cell.device)
    assert of_cell.accuracy(images) == by_hand.accuracy(images) > 0.8
    assert [type(attack).__name__ for attack in of_cell.attacks] == ["Fgsm", "Pgd"]
    assert of_cell.poison is not None
    assert (by_hand.attacks, by_hand.poison) == ((), None)
    assert len(of_cell.defender_images(150)) == 150
    assert len(of_cell.remaining_images(150)) == 50
    assert not set(of_cell.defender_images(150).ids.tolist()) & set(of_cell.remaining_images(150).ids.tolist())


def test_what_is_asked_is_a_name_a_mapping_or_a_component(cell: Path) -> None:
    audited = opened(cell)
    assert settings_for(audited).attack == audited.attacks
    settings = settings_for(audited, attack=[{"name": "fgsm", "eps": 0.1}, Fgsm(eps=0.2)], trigger="sticker", target=3)
    assert settings.attack == (Fgsm(eps=0.1), Fgsm(eps=0.2))
    assert settings.trigger == build("poison", "sticker")
    assert settings.target == 3


def test_wrong_requests_name_the_argument(cell: Path, tmp_path: Path) -> None:
    weights, audited = cell / "model.safetensors", opened(cell)
    by_hand = opened(weights, data="digits", model=NET)
    method, file = build("repair", "fine-tune"), tmp_path / "x.safetensors"
    for call, expected in (
        (lambda: opened(weights), "data: say which data"),
        (lambda: opened(weights, data="digits"), "model: a file of weights needs its architecture"),
        (lambda: opened(weights, data=str(tmp_path), model=NET), f"data: {tmp_path} is a file or folder; say how"),
        (lambda: opened(weights, data="digit", model=NET), "data: unknown data name 'digit'"),
        (lambda: opened(weights, data="digits", model="net"), "model: unknown models name 'net'"),
        (lambda: settings_for(audited, attack=["pgd"]), "attack: the key 'eps' is missing"),
        (lambda: settings_for(audited, measure=["acuracy"]), "measure: unknown measure name"),
        (lambda: settings_for(audited, target=10), "target: there is no class 10"),
        (lambda: settings_for(by_hand, trigger="sticker"), "a trigger aims at a class: name it with `target`"),
        (
            lambda: repair_model(audited, method, 200, file, settings_for(audited)),
            "images: the data have 200 test images",
        ),
        (
            lambda: repair_model(audited, method, 9, tmp_path / "x", settings_for(audited)),
            "output: the weights are written",
        ),
    ):
        with pytest.raises(RequestError) as caught:
            call()
        assert str(caught.value).startswith(expected)


def test_a_trigger_is_found_on_the_proxy_of_its_cell(tmp_path: Path, plan_of, run_here) -> None:
    """Whatever is drawn with another seed, and whatever other network was searched in the same way."""
    record = RunRecord(tmp_path / "searched")
    plan = plan_of(
        "poison.trigger={name: low-frequency, steps: 2}", "poison.label=dirty", "train.epochs=1",
        "data.max_train=200", "data.max_test=60", "vary.train.lr=[0.01, 0.02]", "twin=false", seeds=2,
    )  # fmt: skip
    assert run_here(plan, record).failures == ()
    for cell in (cell for row in plan.rows for cell in row.cells):
        opened = open_model(record.cell(cell.fingerprint).path, device=torch.device("cpu"), roots=(), seed=0)
        trigger = cell.setup.poison.trigger_at_test
        finding = record.cell(cell.proxies[0].fingerprint).finding(trigger.key)
        black = torch.zeros(1, *finding.arrays["pattern"].shape)
        stamped = opened.found(trigger).stamp(black, generator=opened.generator("black"))
        assert torch.equal(stamped[0], torch.from_numpy(finding.arrays["pattern"]).clamp(0, 1))
