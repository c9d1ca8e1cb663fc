"""One evaluator: the table of a run, a cell asked alone, and a model in memory give the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import bascule
from bascule.cli import app
from bascule.metrics.interval import summarise
from bascule.plan.document import read_study
from bascule.plan.overrides import parse_override
from bascule.plan.resolve import make_plan
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import run_plan

MORE = ("asr-paper", "triggered-robust-accuracy", "asr-toward", "asr-away", "drift", "asr-after-attack")


@pytest.fixture(scope="module")
def ten_models(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The digits' two rows with five seeds each, trained shortly."""
    changes = ["train.epochs=3", "twin=false", "certify={name: interval, eps: 0.01}", *(f"measure+={m}" for m in MORE)]
    record = RunRecord(tmp_path_factory.mktemp("runs") / "digits")
    plan = make_plan(read_study("digits"), overrides=[parse_override(text) for text in changes])
    assert run_plan(plan, record, device=torch.device("cpu"), roots=()).failures == ()
    return record


def test_table_and_cell_agree_on_every_metric(ten_models: RunRecord) -> None:
    compared = 0
    for row in read_rows(ten_models):
        for seed in row.planned:
            words = ["evaluate", ten_models.cell(seed.cell.fingerprint).path, "--seed", seed.seed, "--format", "json"]
            words += [word for metric in MORE for word in ("--measure", metric)]
            alone = json.loads(CliRunner().invoke(app, [str(word) for word in words]).stdout)["metrics"]
            for name, metric in row.kinds.items():
                measure = summarise(metric, [row.outcomes[seed.seed]])
                if name != "asr_twin":  # one model has none
                    assert alone[name] == measure.as_dict(), (row.row, seed.seed, name)
                    compared += measure.value is not None
    assert compared >= 10 * (len(MORE) + 4)


def test_a_cell_draws_with_its_own_seed_unless_told_otherwise(ten_models: RunRecord) -> None:
    cell = ten_models.cell(read_rows(ten_models)[1].planned[3].cell.fingerprint).path
    own, same = (
        CliRunner().invoke(app, ["evaluate", str(cell), "--format", "json", *more]).stdout
        for more in ([], ["--seed", "3"])
    )
    assert json.loads(own)["metrics"] == json.loads(same)["metrics"]


def test_weights_and_a_model_in_memory_agree(trained, digits, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(trained.model.state_dict(), tmp_path / "net.safetensors")
    attack = {"name": "pgd", "eps": 0.05, "steps": 3, "restarts": 2}
    words = [
        "evaluate", tmp_path / "net.safetensors", "--data", "digits", "--model",
        "{name: digits-cnn, width: 8, hidden: 32}", "--attack", json.dumps(attack), "--seed", 4, "--format", "json",
    ]  # fmt: skip
    printed = json.loads(CliRunner().invoke(app, [str(word) for word in words]).stdout)
    images, labels = digits.test.batch(torch.arange(len(digits.test))), digits.test.labels
    for x in (images, digits.test.pixels):
        evaluation = bascule.evaluate(trained.model, x, labels, attack=attack, seed=4)
        assert evaluation.as_dict() == {key: printed[key] for key in ("metrics", "flags", "attacks")}
    assert 0 < evaluation["robust_accuracy"].value < evaluation["accuracy"].value  # type: ignore[operator]
