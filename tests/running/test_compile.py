"""A run with compiled training: the same models but for rounding, and the record says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

import bascule.running.context
import bascule.training.loop
from bascule.core.errors import RequestError
from bascule.record.run import RunRecord
from bascule.running.context import Speed
from bascule.running.run import run_plan
from bascule.training.compile import compile_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler about itself


def test_the_record_says_what_was_compiled(
    tmp_path: Path, plan_of: Callable, run_here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bascule.running.context, "check_compiles", lambda _: None)
    monkeypatch.setattr(bascule.training.loop, "compile_model", lambda model: compile_model(model, backend="aot_eager"))
    plan = plan_of(
        "train.optimizer=sgd", "train.lr=0.05", "twin=false", "rows.None.train.objective={name: lipschitz}", seeds=1
    )
    plain, quick = RunRecord(tmp_path / "plain"), RunRecord(tmp_path / "quick")
    run_here(plan, plain)
    ran = run_plan(plan, quick, device=torch.device("cpu"), roots=(), speed=Speed(compile_passes=True))
    assert ran.failures == ()
    without, with_it = (cell.fingerprint for cell in plan.cells())
    for run, wanted in ((plain, (False, False)), (quick, (False, True))):
        assert tuple(run.cell(name).info()["host"]["compiled"] for name in (without, with_it)) == wanted
    one, other = (safetensors.torch.load_file(run.cell(with_it).model_file) for run in (plain, quick))
    assert one.keys() == other.keys()
    assert all(torch.allclose(value, other[name], atol=1e-3) for name, value in one.items())
    assert run_here(plan, quick).cells == 0, "compiled or not is no setting"


def test_a_machine_that_cannot_compile_is_refused_before_any_work(
    tmp_path: Path, plan_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: torch.device) -> None:
        raise RequestError(f"--compile: not on {device}")

    monkeypatch.setattr(bascule.running.context, "check_compiles", refuse)
    with pytest.raises(RequestError, match="not on cpu"):
        run_plan(plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), speed=Speed(compile_passes=True))
    assert not (tmp_path / "cells").exists()
