"""A study small enough to run inside a test: digits, few images, one epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from bascule.study.document import parse_study
from bascule.study.plan import Plan
from bascule.study.record import RunRecord
from bascule.study.resolve import make_plan
from bascule.study.run import Ran, run_plan

TEXT = """\
title: Tiny
base:
  data: {name: digits, max_train: 300, max_test: 60}
  poison: {trigger: {name: sticker, size: 2}, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 4, hidden: 16}
  train: {objective: standard, epochs: 2, batch_size: 50, lr: 1e-2}
  attack:
    - {name: fgsm, eps: 0.1}
    - {name: pgd, eps: 0.1, steps: 3}
rows:
  None: {}
  Adv. training:
    train: {objective: {name: pgd, eps: 0.1, steps: 2}}
seeds: 2
"""

PlanMaker = Callable[..., Plan]


@pytest.fixture(scope="session")
def plan_of() -> PlanMaker:
    """A plan from a study's text (the tiny one by default) with overrides."""

    def make(
        *overrides: str,
        text: str = TEXT,
        scale: str | None = None,
        seeds: int | None = None,
        roots: Sequence[Path] = (),
    ) -> Plan:
        document = parse_study(text, name="tiny", source="tiny.yaml")
        return make_plan(document, overrides=overrides, scale=scale, seeds=seeds, roots=roots)

    return make


@pytest.fixture(scope="session")
def run_here() -> Callable[[Plan, RunRecord], Ran]:
    """Run a plan on the CPU in this process."""
    return lambda plan, run: run_plan(plan, run, device=torch.device("cpu"), roots=())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, plan_of: PlanMaker, run_here: Callable) -> RunRecord:
    """The tiny study, run once; tests must not write into it."""
    run = RunRecord(tmp_path_factory.mktemp("runs") / "tiny")
    ran = run_here(plan_of(), run)
    assert ran.failures == ()
    return run
