"""Each package offers its components and its contract, `bascule.attacks.Pgd`, to editors and at run time alike."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import bascule
from bascule.core.catalog import PACKAGES, ROOMS, is_built_in, load, names

ROOT = Path(bascule.__file__).parent


def offered(package: str) -> dict[str, str]:
    """What a package's stub lists: name and module."""
    tree = ast.parse((ROOT / package / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("room", ROOMS)
def test_every_component_is_offered_by_its_package(room: str) -> None:
    package = importlib.import_module(f"bascule.{PACKAGES[room]}")
    listed = offered(PACKAGES[room])
    assert dir(package) == sorted(listed)
    for name in filter(lambda name: is_built_in(room, name), names(room)):
        cls = load(room, name)
        assert listed.get(cls.__name__) == name.replace("-", "_"), f"a line is missing in {PACKAGES[room]}/__init__.pyi"
        assert getattr(package, cls.__name__) is cls


@pytest.mark.parametrize("room", ROOMS)
def test_the_contract_is_offered_too(room: str) -> None:
    tree = ast.parse((ROOT / PACKAGES[room] / "contract.py").read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    assert {name for name, module in offered(PACKAGES[room]).items() if module == "contract"} == classes


def test_a_package_loads_nothing_until_it_is_asked() -> None:
    rooms = ", ".join(f"bascule.{package}" for package in PACKAGES.values())
    code = f"import {rooms}, sys; dir(bascule.attacks); print('torch' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
