"""Records that many tests of the report look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bascule.plan.document import parse_study
from bascule.plan.resolve import make_plan
from bascule.record.run import RunRecord
from bascule.running.run import run_plan
from findings import FOOLED, full, row_with, run_of, twin_of
from pages import sections

STUDY = r"""
title: Tiny <b>run</b> of $5$
base:
  data: {name: digits, max_train: 200, max_test: 60}
  poison: {trigger: sticker, target: 7, rate: 0.05}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 2, batch_size: 50}
  attack: [{name: fgsm, eps: 0.05}, {name: pgd, eps: 0.05, steps: 2}, {name: pgd, eps: 0.1, steps: 2}]
  certify: {name: interval, eps: 0.001}
rows:
  None: {}
  'Width $\frac$ <4>': {model: {width: 4}}
vary: {train.lr: [0.01, 0.001]}
seeds: 2
measure: [accuracy, robust-accuracy, asr, certified-accuracy]
"""


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """Four rows, two seeds each; tests must leave it as they find it."""
    run = RunRecord(tmp_path_factory.mktemp("runs") / "tiny")
    plan = make_plan(parse_study(STUDY, name="tiny", source="tiny.yaml"))
    assert run_plan(plan, run, device=torch.device("cpu"), roots=()).failures == ()
    return run


@pytest.fixture
def page(tmp_path: Path) -> dict[str, str]:
    """The panels of evidence of a run with one finding of each kind."""
    run = run_of(tmp_path / "run", row_with("None", full(), twins=[twin_of(full())], fooled=FOOLED))
    return sections(run, tmp_path)
