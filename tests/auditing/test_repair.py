"""A model repaired and measured before and after."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.numpy

from bascule.record.run import RunRecord


def numbers(output: str) -> dict[str, list[float]]:
    """By metric: before, after, change."""
    lines = re.findall(r"^ (\w[\w ]+) % [↑↓] +([\d.]+) +([\d.]+) +([+-][\d.]+)$", output, re.MULTILINE)
    return {name: [float(part) for part in parts] for name, *parts in lines}


def test_a_repair_is_measured_on_both_ends(said: Callable, cell: Path, tmp_path: Path) -> None:
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


def test_a_cell_says_itself_what_to_measure(said: Callable, cell: Path, tmp_path: Path) -> None:
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


def test_a_repair_is_measured_under_every_attack_of_the_cell(
    said: Callable, tmp_path_factory: pytest.TempPathFactory, plan_of, run_here, tmp_path: Path
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
