"""A table is the same text wherever it is made."""

from __future__ import annotations

import pytest
import rich.console

from bascule.core.grid import Grid, TableCell, render


@pytest.mark.parametrize("variable", ["", "FORCE_COLOR", "NO_COLOR"])
@pytest.mark.parametrize("notebook", [False, True])
def test_a_table_is_text_whoever_asks(notebook: bool, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook rich would show it there and then, and leave nothing to print."""
    if variable:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: notebook)
    grid = Grid(names=["Row"], numbers=["ASR % ↓"], lines=[[TableCell("None"), TableCell("3.4", "1.0–7.8")]])
    lines = render([grid], [["Below."]], "text").splitlines()
    assert [line.split() for line in lines if line.strip("─ ")] == [
        ["Row", "ASR", "%", "↓"], ["None", "3.4"], ["1.0–7.8"], ["Below."]
    ]  # fmt: skip
    assert "\x1b" not in "".join(lines)
