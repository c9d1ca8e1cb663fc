"""`check_hook` as authors of hooks call it: a good one passes, each fault is one sentence with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from bascule.hooks import CellEnd, CellFacts, Hook, RunEnd, RunFacts
from bascule.testing import check_hook


class Deaf(Hook):
    """Overrides nothing; its one method is called otherwise."""

    def on_epoch(self) -> None: ...


class Round(Hook):
    """Takes every measure for known."""

    def cell_ended(self, cell: CellFacts, end: CellEnd) -> None:
        for measure in end.measures.values():
            round(measure["value"], 3)


class Closes(Hook):
    """Takes every cell that has begun for ended."""

    def run_begun(self, run: RunFacts) -> None:
        self.open: set[str] = set()

    def cell_begun(self, cell: CellFacts) -> None:
        self.open.add(cell.fingerprint)

    def cell_ended(self, cell: CellFacts, end: CellEnd) -> None:
        self.open.remove(cell.fingerprint)

    def run_ended(self, end: RunEnd) -> None:
        if self.open:
            raise SystemExit(f"{len(self.open)} open")


class Short(Hook):
    """Forgets an argument."""

    def epoch(self, cell: CellFacts) -> None: ...  # type: ignore[override]


class OneAtATime(Hook):
    """Takes an epoch for that of the cell that began last."""

    def cell_begun(self, cell: CellFacts) -> None:
        self.current = cell

    def epoch(self, cell: CellFacts, epoch: int, values: Mapping[str, float]) -> None:
        if cell != self.current:
            raise KeyError(cell.label)


class Named(Hook):
    """Is not made without arguments."""

    def __init__(self, name: str) -> None:
        self.name = name

    def table(self, rows: Any) -> None: ...


def test_one_that_takes_what_comes_passes() -> None:
    check_hook(lambda: Named("any"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Deaf, "it overrides none of run_begun, cell_begun, epoch, cell_ended, table, run_ended, and so hears nothing"),
        (Round, "cell_ended fails in a run with a cell that is done and one that fails: TypeError: "),
        (Closes, "run_ended fails in a run that is interrupted in a training: SystemExit: 1 open"),
        (Short, "epoch fails in a run with a cell that is done and one that fails: TypeError: "),
        (OneAtATime, "epoch fails in a run of two cells at a time: KeyError: "),
        (Named, "it cannot be made without arguments: TypeError: "),
        (Named("x"), "give the class of a hook, or a function that makes one, not <"),
        (dict, "what was made is dict, no bascule.hooks.Hook"),
    ],
    ids=lambda value: None if isinstance(value, str) else getattr(value, "__name__", "instance"),
)
def test_a_fault_is_one_sentence_with_its_line(make: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)) as caught:
        check_hook(make)
    if " fails in " in said:
        assert re.search(rf"\({re.escape(__file__)}, line \d+\)$", str(caught.value))
