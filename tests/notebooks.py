"""The tutorials as the tests see them: JSON with cells, run one after the other as Jupyter would."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of code, in order."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(path: Path, folder: Path) -> dict[str, Any]:
    """Run all cells in an empty folder, and let the last value of each show itself as in a notebook.

    Returns:
        The names that they leave behind.
    """
    before = set(sys.modules)
    names: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("MPLBACKEND", "Agg")
        try:
            for number, cell in enumerate(cells(path), 1):
                _run_cell("".join(cell["source"]), f"{path.name}, cell {number}", names)
        finally:
            _close_figures()
            _forget({name for name in set(sys.modules) - before if _lies_in(folder, sys.modules[name])})
    return names


def _run_cell(source: str, called: str, names: dict[str, Any]) -> None:
    body = ast.parse(source, called).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), called, "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), called, "eval"), names)
        if hasattr(value, "_repr_html_"):
            assert value._repr_html_()
        assert repr(value)


def _close_figures() -> None:
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


def _lies_in(folder: Path, module: Any) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(folder)


def _forget(names: set[str]) -> None:
    for name in names:
        del sys.modules[name]
