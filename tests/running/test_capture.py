"""A run with captured training, rehearsed: the same models to the last byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bascule.running.context
from bascule.core.errors import RequestError
from bascule.record.run import RunRecord
from bascule.running.context import Speed
from bascule.running.run import run_plan
from bascule.training.rehearsal import Rehearsal


def test_a_captured_run_makes_the_same_models(
    tmp_path: Path, plan_of: Callable, run_here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of("twin=false", "train.batch_size=16", seeds=1)
    plain, quick, recorded = RunRecord(tmp_path / "plain"), RunRecord(tmp_path / "quick"), []
    run_here(plan, plain)
    record = Rehearsal.record
    monkeypatch.setattr(Rehearsal, "record", lambda *given: (recorded.append(0), record(*given))[1])
    monkeypatch.setattr(bascule.running.context, "check_captures", lambda _: None)
    ran = run_plan(plan, quick, device=torch.device("cpu"), roots=(), speed=Speed(capture_steps=True))
    assert ran.failures == ()
    assert len(recorded) == len(plan.cells())
    for cell in plan.cells():
        one, other = (run.cell(cell.fingerprint).model_file.read_bytes() for run in (plain, quick))
        assert one == other


def test_a_device_that_captures_nothing_is_refused_before_any_work(tmp_path: Path, plan_of: Callable) -> None:
    with pytest.raises(RequestError, match="steps are captured on CUDA"):
        run_plan(plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), speed=Speed(capture_steps=True))
    assert not (tmp_path / "cells").exists()
