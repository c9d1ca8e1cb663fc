"""A trained model with a backdoor, and the command line to look at it with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bascule.cli import app
from bascule.core.errors import RequestError
from bascule.record.run import RunRecord


@pytest.fixture(scope="session")
def cell(tmp_path_factory: pytest.TempPathFactory, plan_of, run_here) -> Path:
    """The folder of a cell with a strong backdoor: dirty labels, a tenth of the digits."""
    record = RunRecord(tmp_path_factory.mktemp("own"))
    change = ["poison.label=dirty", "poison.rate=0.1", "poison.rate_of=all", "data.max_train=900", "data.max_test=200"]
    plan = plan_of(*change, "train.epochs=8", "twin=false", "rows.Adv. training.train.epochs=1", seeds=1)
    assert run_here(plan, record).failures == ()
    return record.cell(plan.rows[0].cells[0].fingerprint).path


@pytest.fixture(scope="session")
def said() -> Callable[..., str]:
    """Run a command; gives its output."""

    def call(*words: object) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    return call


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Run a command that is a wrong request; gives what is said of it."""

    def call(*words: object) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert isinstance(done.exception, RequestError), done.output
        return str(done.exception)

    return call
