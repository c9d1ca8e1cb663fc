"""The house has floors: imports go down only, and a defence never sees the truth."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bascule

ROOT = Path(bascule.__file__).parent

COMPONENTS = {
    "data",
    "models",
    "triggers",
    "attacks",
    "certifiers",
    "explanations",
    "training",
    "filters",
    "scanners",
    "detectors",
    "repairs",
    "metrics",
}
BELOW: dict[str, set[str]] = {
    "core": set(),
    "data": {"core"},
    "models": {"core"},
    "metrics": {"core"},
    "triggers": {"core"},
    "attacks": {"core"},
    "certifiers": {"core"},
    "explanations": {"core"},
    "training": {"core", "attacks", "certifiers"},
    "filters": {"core", "training"},
    "scanners": {"core", "attacks", "certifiers"},
    "detectors": {"core", "attacks"},
    "repairs": {"core", "attacks", "certifiers", "training", "scanners"},
    "record": {"core", "metrics"},
    "evaluation": {"core", "record", *COMPONENTS - {"data", "repairs"}},
    "plan": {"core", "evaluation", "record", *COMPONENTS},
    "hooks": {"core"},
    "running": {"core", "hooks", "plan", "evaluation", "record", *COMPONENTS},
    "auditing": {"core", "plan", "running", "evaluation", "record", *COMPONENTS},  # an audit is a run (decision 20)
    "report": {"core", "metrics", "record"},
    "api": {"core", "hooks", "plan", "running", "auditing", "evaluation", "record", "report", *COMPONENTS},
    "testing": {"core", "hooks", "evaluation", *COMPONENTS},
    "__main__": {"cli"},
    "cli": {"core", "data", "hooks", "plan", "running", "auditing", "evaluation", "record", "report", "api"},
}
"""For each room, the other rooms it may import."""

DEFENCES = ("training", "filters", "scanners", "detectors", "repairs")


def imported_rooms(source: str) -> set[str]:
    """Rooms of the package that a module imports, anywhere in its text."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            found |= set(names) if parts[0] == "bascule" else set()
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("bascule.")}
    return found


def private_imports(source: str, room: str) -> set[str]:
    """Modules with a leading underscore of rooms other than `room` that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bascule."):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("bascule.")}
    parts = {name: name.split(".") for name in found}
    return {
        name
        for name, (_, other, *rest) in parts.items()
        if other != room and any(part.startswith("_") and not part.startswith("__") for part in rest)
    }


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path: Path) -> None:
    room = room_of(path)
    assert imported_rooms(path.read_text()) - {room} <= BELOW[room]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_leading_underscore_means_private_to_the_room(path: Path) -> None:
    assert private_imports(path.read_text(), room_of(path)) == set()


@pytest.mark.parametrize("room", DEFENCES)
def test_no_defence_may_import_poison(room: str) -> None:
    assert "triggers" not in BELOW[room]


def test_the_check_sees_every_way_to_import() -> None:
    assert imported_rooms("from bascule.triggers import Trigger") == {"triggers"}
    assert imported_rooms("from bascule import triggers, core") == {"triggers", "core"}
    assert imported_rooms("def f():\n    import bascule.triggers.placement as p") == {"triggers"}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import bascule.cli",
        "import bascule.record.run, bascule.record.rows",
        "import bascule.report.tables.tables",
        "import bascule.report.page.page, bascule.report.panels; bascule.report.panels.panels()",
        "from bascule.core.catalog import *; [documentation(r, n) for r in ROOMS for n in names(r)]",
    ],
)
def test_reading_and_listing_import_no_torch(statement: str) -> None:
    assert "torch" not in modules_after(statement)


def test_help_imports_only_the_command_line() -> None:
    loaded = modules_after("import bascule.cli")
    assert not loaded & {"torch", "numpy", "scipy", "pydantic", "matplotlib", "pyarrow"}


OTHER_PROGRAMS = {"running/provenance.py"}
"""Modules that call another program with options of its own."""


def option_words(source: str) -> list[str]:
    """Strings of a module that hold an option of a command line, or make one; documentation may speak of commands."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    made = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            end = "|$" if id(node) in made else ""
            found += [node.value] if re.search(rf"(?<![\w(-])--([a-z{{]{end})", node.value) else []
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_command_line_speaks_of_options(path: Path) -> None:
    if room_of(path) != "cli" and path.relative_to(ROOT).as_posix() not in OTHER_PROGRAMS:
        assert option_words(path.read_text()) == []


def test_the_check_sees_options() -> None:
    assert option_words('"""Of `table --format`."""\nx = f"--{key}"') == ["--"]
    assert option_words('raise E("Set --data-dir", f"--device {name!r}: no")') == ["Set --data-dir", "--device "]
    assert option_words('"--{}".format(key)') == ["--{}"]
    assert option_words('"var(--rule)", "a -- b", "x--y", "# --- part ---", "--", f"{x} -- {y}"') == []


def test_the_library_prints_nothing() -> None:
    for path in MODULES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path
