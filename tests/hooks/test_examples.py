"""The hooks that docs/hooks.md shows, run as shown where what they write to is installed."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bascule.hooks import Hook
from bascule.metrics.contract import Measure
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import run_plan
from bascule.testing import check_hook

PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"
SMALL = """\
title: Small
base:
  data: {name: digits, max_train: 200, max_test: 40}
  model: {name: digits-cnn, width: 4, hidden: 16}
  train: {objective: standard, epochs: 2, batch_size: 50, lr: 1e-2}
rows:
  None: {}
  Broken: {train: {lr: 1e30}}
seeds: 1
measure: [accuracy]
"""


def shown(name: str, folder: Path) -> ModuleType:
    """The module of this name, as the page has it."""
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(rf"^```python\n(# {name}\.py\b.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (folder / f"{name}.py").write_text(code)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def followed(hook: Hook, plan: Any, folder: Path) -> RunRecord:
    """A run with a cell that goes well and one that fails, and no warning."""
    said: list[str] = []
    run = RunRecord(folder / "run")
    ran = run_plan(plan, run, device=torch.device("cpu"), roots=(), hooks=[hook], warn=said.append)
    assert (ran.cells, len(ran.failures), said) == (2, 1, [])
    return run


def test_what_the_page_announces_is_what_it_shows() -> None:
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for place in tomllib.loads(toml)["project"]["entry-points"]["bascule.hooks"].values():
        module, cls = place.split(":")
        assert re.search(rf"^# {module}\.py\n(?:(?!```).*\n)*class {cls}\(Hook\)", PAGE.read_text(), re.MULTILINE)


def test_the_shortest(plan_of: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As shown, with the test that the page has for it."""
    cls = shown("say", tmp_path).Say
    run = followed(cls(), plan_of(text=SMALL), tmp_path)
    good, bad = capsys.readouterr().out.splitlines()
    (row,) = (row for row in read_rows(run) if row.row == "None")
    assert good == f"None · seed 0 {{'accuracy': {row.metrics['accuracy'].value}}}"
    assert bad.startswith("Broken · seed 0 ")
    assert "diverged" in bad
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        shown("test_say", tmp_path).test_say()


def test_the_keys_of_a_measure_are_on_the_page() -> None:
    keys = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [key for cell in keys for key in re.findall(r"\w+", cell)] == [field.name for field in fields(Measure)]


def test_every_method_is_on_the_page() -> None:
    methods = {name for name in vars(Hook) if not name.startswith("_")}
    assert methods == set(re.findall(r"^\| `(\w+)\(", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_mlflow(plan_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    hook, plan = shown("track_mlflow", tmp_path).Mlflow, plan_of(text=SMALL)
    check_hook(hook)
    run = followed(hook(), plan, tmp_path)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("tiny")
    by_name = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    good, bad = by_name["None · seed 0"], by_name["Broken · seed 0"]
    fingerprint = good.data.tags["fingerprint"]
    (row,) = (row for row in plan.rows if row.name == "None")
    assert fingerprint == row.cells[0].fingerprint
    curve = run.cell(fingerprint).curve()
    told = client.get_metric_history(good.info.run_id, "loss")
    assert [(point.step, point.value) for point in told] == [(entry["epoch"], entry["loss"]) for entry in curve]
    assert 0 <= good.data.metrics["accuracy_low"] <= good.data.metrics["accuracy"] <= 1
    assert good.data.params["train.epochs"] == "2"
    assert (good.info.status, bad.info.status) == ("FINISHED", "FAILED")
    assert "diverged" in bad.data.tags["failure"]
    table = json.loads((Path(by_name["table"].info.artifact_uri.removeprefix("file://")) / "table.json").read_text())
    assert table["rows"] == [row.as_dict() for row in read_rows(run)]


def test_tensorboard(plan_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    hook = shown("track_tensorboard", tmp_path).Board
    check_hook(hook)
    run = followed(hook(), plan_of(text=SMALL), tmp_path)
    (folder,) = (tmp_path / "tensorboard" / "tiny").glob("None*")
    read = EventAccumulator(str(folder)).Reload()
    (fingerprint,) = (cell.fingerprint for cell in plan_of(text=SMALL).cells() if cell.label.startswith("None"))
    curve = run.cell(fingerprint).curve()
    told = [(event.step, event.value) for event in read.Scalars("training/loss")]
    assert told == [(entry["epoch"], pytest.approx(entry["loss"], rel=1e-6)) for entry in curve]
    assert 0 <= read.Scalars("measures/accuracy")[0].value <= 1
    assert "table/text_summary" in EventAccumulator(str(folder.parent / "table")).Reload().Tags()["tensors"]
