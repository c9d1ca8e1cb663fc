"""Work that is stopped half-way: a program that Ctrl-C reaches, and trainings that are killed between two steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

import bascule.running.make
from bascule.plan.plan import Plan
from bascule.record.run import RunRecord
from bascule.running.run import Ran
from bascule.training import loop

# Whoever runs the tests in the background may have Ctrl-C ignored, which would be inherited.
PROGRAM = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bascule.cli import main
main()
"""


class Killed(BaseException):
    """Stands for a kill: no handler of ours may catch it."""


def run_killed(run_here: Callable[[Plan, RunRecord], Ran], plan: Plan, run: RunRecord, *steps: int) -> int:
    """Run a plan, killed before each of these steps of its trainings and continued, with a checkpoint after every step.

    Gives how many steps were begun in all, those that were killed among them.
    """
    real_train, real_step, taken = loop.train, loop.Steps.take, 0

    def step(*args: Any) -> Tensor:
        nonlocal taken
        taken += 1
        if taken in steps:
            raise Killed
        return real_step(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bascule.running.make, "train", lambda *a, **k: real_train(*a, **k, checkpoint_seconds=0.0))
        patch.setattr(loop.Steps, "take", step)
        for _ in steps:
            with pytest.raises(Killed):
                run_here(plan, run)
        assert run_here(plan, run).failures == ()
    return taken
