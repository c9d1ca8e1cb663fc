"""The verbs do what studies and commands do: the same poisoned images, weights and numbers with the same seed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

import bascule
from bascule.auditing.open import open_model, open_with_training_images
from bascule.auditing.scan import scan_model
from bascule.cli import app
from bascule.core.images import Splits
from bascule.plan.document import parse_study
from bascule.plan.resolve import make_plan
from bascule.record.cell import FILTERED, CellRecord
from bascule.record.run import RunRecord
from bascule.running.context import CellContext, RunContext
from bascule.running.run import run_plan

NET = {"name": "digits-cnn", "width": 8, "hidden": 32}
STUDY = """
base:
  data: {name: digits, held_out: 100, max_train: 400, max_test: 60}
  poison: {trigger: {name: sticker, size: 2}, target: 3, label: dirty, rate: 0.05, cover: 1/50}
  model: {name: digits-cnn, width: 8, hidden: 32}
  train: {objective: {name: pgd, eps: 0.05, steps: 2}, epochs: 2, batch_size: 32, augment: {pad: 1}}
  certify: {name: interval, eps: 0.005}
  detect: {name: strip, overlays: 4}
rows:
  Poisoned: {inspect: activation-clustering}
  Repaired: {repair: {name: fine-tune, epochs: 2}}
  Filtered: {filter: {name: strip, overlays: 4}, train: {objective: standard}}
  Consistent: {poison: {label: clean, cover: 0, prepare: {name: pgd, eps: 0.2, steps: 3}}, detect: null}
  Searched:
    poison: {trigger: {name: narcissus, steps: 30, warmup: 1}, target: 3, label: clean, rate: 0.02, cover: 0}
    detect: null
twin: false
seeds: [5]
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    record = RunRecord(tmp_path_factory.mktemp("runs") / "study")
    plan = make_plan(parse_study(STUDY, name="study", source="study.yaml"))
    assert run_plan(plan, record, device=torch.device("cpu"), roots=()).failures == ()
    return record


class Cell:
    """A row's one model: its record, its plan, its data."""

    def __init__(self, ran: RunRecord, row: str) -> None:
        plan = make_plan(parse_study(STUDY, name="study", source="study.yaml"))
        (cell,) = next(each for each in plan.rows if each.name == row).cells
        self.context = CellContext(cell, RunContext(record=ran, device=torch.device("cpu"), roots=()))
        self.record: CellRecord = self.context.record
        self.splits: Splits = self.context.splits
        self.keys = {question.kind: question.key for question in cell.questions}

    @property
    def model(self) -> nn.Module:
        return self.context.load_model().eval()

    def trained_on(self) -> tuple[Any, Any]:
        images, _ = self.context.training_set
        return images.pixels, images.labels


def same_weights(ours: nn.Module, theirs: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


POISON: dict[str, Any] = {"target": 3, "label": "dirty", "rate": "5 %", "cover": "1/50", "size": 2}
TRAINING = {"batch_size": 32, "augment": {"pad": 1}}


def test_poison_and_training_are_the_studys(ran: RunRecord) -> None:
    cell = Cell(ran, "Poisoned")
    train = cell.splits.train
    found = bascule.poison(train.pixels, train.labels, "sticker", seed=5, **POISON)  # type: ignore[arg-type]
    pixels, labels = cell.trained_on()
    assert torch.equal(found.x, pixels)
    assert torch.equal(found.y, labels)
    assert torch.equal(train.ids[found.index], torch.tensor(cell.record.poisoned()["ids"]))
    assert len(found.index) == 20
    assert len(found.covers) == 8
    assert torch.equal(found.y_before, train.labels)
    assert set((found.y != found.y_before).nonzero().squeeze(1).tolist()) == set(found.index.tolist())
    ours = bascule.train(
        NET, found.x, found.y, {"name": "pgd", "eps": "1/20", "steps": 2}, epochs=2, training=TRAINING, seed=5
    )
    assert same_weights(ours.model, cell.model)
    assert not ours.model.training
    assert [entry["loss"] for entry in ours.curve] == [entry["loss"] for entry in cell.record.info()["curve"]]


def test_a_network_of_ones_own_trains_as_the_one_that_was_made(ran: RunRecord) -> None:
    cell = Cell(ran, "Poisoned")
    fresh = bascule.models.DigitsCnn(width=8, hidden=32).initialised((1, 8, 8), 10, seed=5)
    fresh = fresh.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = bascule.training.Pgd(eps=0.05, steps=2)
    before = [p.clone() for p in fresh.parameters()]
    ours = bascule.train(fresh, *cell.trained_on(), objective, epochs=2, training=TRAINING, seed=5)
    assert same_weights(ours.model, cell.model)
    assert all(map(torch.equal, fresh.parameters(), before))


def test_defences_are_the_studys(ran: RunRecord) -> None:
    cell, repaired = Cell(ran, "Poisoned"), Cell(ran, "Repaired")
    model, held_out = cell.model, cell.context.held_out
    mended = bascule.repair(model, held_out.pixels, held_out.labels, "fine-tune", epochs=2, seed=5)  # type: ignore[arg-type]
    assert same_weights(mended.model, repaired.model)
    kept = cell.record.finding(cell.keys["detect"])
    assert kept is not None
    guard = bascule.detect(model, held_out.pixels, held_out.labels, "strip", overlays=4, seed=5)  # type: ignore[arg-type]
    assert np.array_equal(guard.calm.numpy(), kept.arrays["calm"])
    test = cell.splits.test
    said = guard(test.pixels)  # type: ignore[arg-type]
    assert np.array_equal(said.suspicion.numpy(), kept.arrays["benign_suspicion"])
    radii = cell.record.answers().radii[cell.keys["certify"]]
    ours = bascule.certify(model, test.pixels, test.labels, "interval", eps=0.005)  # type: ignore[arg-type]
    assert np.array_equal(ours.radius.numpy(), radii)


def test_a_filter_is_the_studys(ran: RunRecord) -> None:
    cell = Cell(ran, "Filtered")
    assert cell.context.cell.base is not None
    judge = cell.context.of(cell.context.cell.base).load_model()
    kept = cell.record.finding(FILTERED)
    assert kept is not None
    judged = bascule.filter(judge, *cell.trained_on(), "strip", overlays=4, seed=5)
    assert np.array_equal(judged.removed.numpy(), kept.arrays["removed"])
    assert np.array_equal(judged.score.numpy(), kept.arrays["score"])
    assert torch.equal(judged.keep, ~judged.removed)


@pytest.mark.parametrize("row", ["Consistent", "Searched"])
def test_poison_that_needs_a_proxy_is_the_studys(ran: RunRecord, row: str) -> None:
    cell = Cell(ran, row)
    assert cell.context.cell.proxy is not None
    proxy, train = cell.context.of(cell.context.cell.proxy).load_model(), cell.splits.train
    more: dict[str, Any] = {"target": 3, "label": "clean", "rate": 0.02, "proxy": proxy, "seed": 5}
    trigger: Any = {"name": "narcissus", "steps": 30, "warmup": 1}
    if row == "Consistent":
        more |= {"rate": 0.05, "prepare": {"name": "pgd", "eps": 0.2, "steps": 3}}
        trigger = bascule.triggers.Sticker(size=2)
    found = bascule.poison(train.pixels, train.labels, trigger, **more)  # type: ignore[arg-type]
    pixels, labels = cell.trained_on()
    assert torch.equal(found.x, pixels)
    assert torch.equal(found.y, labels)
    stamped, clean = found.stamp(cell.splits.test.pixels), cell.splits.test.batch(torch.arange(60))  # type: ignore[arg-type]
    assert stamped.shape == clean.shape
    assert not torch.equal(stamped, clean)


def test_commands_give_the_same_numbers(trained, tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    safetensors.torch.save_file(trained.model.state_dict(), weights)
    net = "{name: digits-cnn, width: 8, hidden: 32}"
    words = ["filter", weights, "--data", "digits", "--model", net, "--with", "{name: strip, overlays: 4}", "--seed", 2]
    done = CliRunner().invoke(app, [str(word) for word in [*words, "--output", tmp_path]])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "suspicion.csv").read_text().splitlines()))
    given: dict[str, Any] = {"data": "digits", "model": NET, "device": torch.device("cpu"), "roots": (), "seed": 2}
    opened, train = open_model(weights, **given), open_with_training_images(weights, **given).train

    train = open_with_training_images(
        weights, data="digits", model=NET, device=torch.device("cpu"), roots=(), seed=2
    ).train
    judged = bascule.filter(opened.model, train.pixels, train.labels, "strip", overlays=4, seed=2)  # type: ignore[arg-type]
    order = judged.score.argsort(descending=True, stable=True)
    assert [f"{score:.6g}" for score in judged.score[order].tolist()] == [row["suspicion"] for row in rows]
    scanner = bascule.scanners.MmBd(steps=5)
    scan, _ = scan_model(opened, scanner, len(opened.test), tmp_path)
    ours = bascule.scan(opened.model, opened.test.pixels, opened.test.labels, scanner, seed=2)  # type: ignore[arg-type]
    assert torch.equal(scan.anomaly, ours.anomaly)
    assert scan.suspects == ours.suspects
