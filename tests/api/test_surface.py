"""What `import bascule` offers, and that type checkers and editors see the same."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bascule
from bascule.cli.new import new
from bascule.core.catalog import PACKAGES

ROOT = Path(bascule.__file__).parent
STUB = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
PAGES = Path(__file__).parents[2]
MODULES = {a.name: n.module or "" for n in STUB.body if isinstance(n, ast.ImportFrom) for a in n.names}
VERBS = {name for name, module in MODULES.items() if module.startswith("api.") and name.islower()}


def test_the_surface_is_what_is_listed_and_nothing_else() -> None:
    assert dir(bascule) == sorted(MODULES)
    assert set(PACKAGES.values()) <= set(dir(bascule))
    assert bascule.__version__


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_is_a_function_in_a_file_of_its_name(name: str) -> None:
    verb = getattr(bascule, name)
    assert verb.__module__ == f"bascule.api.{name}"
    assert inspect.isfunction(verb)
    assert "Raises:" in inspect.getdoc(verb) or ""
    hints = inspect.get_annotations(verb)
    assert set(hints) == {*inspect.signature(verb).parameters, "return"}
    first = list(inspect.signature(verb).parameters)
    if name not in ("check", "load", "run", "audit", "poison"):
        assert first[:3] == ["model", "x", "y"]


def test_importing_loads_nothing_heavy() -> None:
    code = "import bascule, sys; dir(bascule); print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_results_can_be_named_without_a_submodule() -> None:
    code = "import bascule; print(bascule.Scan.__name__, bascule.attacks.Pgd.__name__, bascule.filter.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Scan", "Pgd", "filter"]


def test_pages_and_notebooks_import_public_names_alone() -> None:
    pages = [PAGES / "README.md", *sorted((PAGES / "docs").rglob("*.md")), *sorted((PAGES / "docs").rglob("*.ipynb"))]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages if "_build" not in page.parts}
    found = {
        (page, place, name)
        for page, text in texts.items()
        for place, names in re.findall(r"from (bascule[\w.]*) import ([\w, ]+)", text)
        for name in names.replace(" ", "").split(",")
    }
    assert ("own-trigger.ipynb", "bascule", "component") in found
    private = {(page, place, name) for page, place, name in found if not is_public(place, name)}
    assert private == set()


def is_public(place: str, name: str) -> bool:
    """Whether the stub of the package, or of one of its rooms, lists it."""
    listed = place == "bascule" or place.removeprefix("bascule.") in MODULES
    return listed and name in dir(importlib.import_module(place))


SCRIPT = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import bascule


def everything(model: nn.Module, x: torch.Tensor, y: torch.Tensor, data: Dataset[tuple[torch.Tensor, int]]) -> None:
    loader: DataLoader[tuple[torch.Tensor, int]] = DataLoader(data)
    attack = bascule.attacks.Pgd(eps=8 / 255, steps=10)
    adversarial: torch.Tensor = bascule.perturb(model, x, y, "pgd", eps=8 / 255)
    adversarial = attack(model, x, y, seed=1)
    poisoned: bascule.Poisoned = bascule.poison(x, y.numpy(), "sticker", target=0, rate="0.5 %", label="dirty", size=3)
    trained: bascule.Trained = bascule.train("resnet18", loader, None, "pgd", eps=0.1, epochs=2, training={"lr": 0.1})
    trained = bascule.train(model, poisoned.x, poisoned.y, bascule.training.Trades(eps=8 / 255), epochs=2)
    found: bascule.Evaluation = bascule.evaluate(model, data, attack=[attack, "fgsm"], trigger="sticker", target=0)
    value: float | None = found["accuracy"].value
    certified: bascule.Certified = bascule.certifiers.Interval(eps=2 / 255)(model, x, y)
    share: float = certified.accuracy_at(1 / 255)
    judged: bascule.Judged = bascule.filter(model, poisoned.x, poisoned.y, bascule.filters.SpectralSignatures())
    kept: torch.Tensor = poisoned.x[judged.keep]
    scan: bascule.Scan = bascule.scan(model, x.numpy(), [0, 1], {"name": "mm-bd"})
    suspects: tuple[int, ...] = scan.suspects
    guard: bascule.Guard = bascule.detect(model, loader, None, "strip")
    refused: torch.Tensor = guard(poisoned.stamp(x)).refused(0.05)
    repaired: nn.Module = bascule.repairs.FinePruning()(model, x, y).model
    try:
        checked: bascule.Checked = bascule.check(found, "accuracy > 0.5")
    except bascule.DivergedError as error:
        print(error.step)
    except bascule.RequestError as error:
        print(error.problem, value, share, kept, suspects, refused, repaired, checked, adversarial, bascule.__version__)
"""
WRONG = """
import bascule

bascule.attacks.Pgd(eps=8 / 255, stpes=3)
bascule.attacks.Pgd(steps=3)
bascule.triggers.Sticker(size="3")
bascule.poison([], [], "sticker", rate=0.1, label="wrong")
bascule.perturbe
bascule.evaluate(1, 2)
"""


def test_type_checkers_see_the_surface_every_setting_and_no_fault_in_new_plug_ins(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run of mypy on two files and what `bascule new` writes: 10 s of a processor where nothing is cached."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("script.py", SCRIPT), ("wrong.py", WRONG)):
        (tmp_path / name).write_text(text)
    for kind in PACKAGES:
        new(kind, f"own-{kind}")
    sources, tests = (sorted(map(str, tmp_path.glob(f"own-*/{folder}/*.py"))) for folder in ("src", "tests"))
    assert len(sources) == len(tests) == len(PACKAGES)
    path = os.pathsep.join(map(str, [ROOT.parent, *(Path(file).parent for file in sources)]))
    cache = tmp_path_factory.getbasetemp().parent / "mypy-surface"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports", "silent",
         "--cache-dir", str(cache), "script.py", "wrong.py", *sources, *tests],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert [line for line in said if not line.startswith("wrong.py")] == [], done.stderr
    for line, expected in {
        4: 'Unexpected keyword argument "stpes" for "Pgd"',
        5: 'Missing named argument "eps" for "Pgd"',
        6: 'Argument "size" to "Sticker" has incompatible type "str"',
        7: 'Argument "label" to "poison" has incompatible type',
        8: 'Module has no attribute "perturbe"',
        9: 'Argument 1 to "evaluate" has incompatible type "int"',
    }.items():
        assert [text for text in said if text.startswith(f"wrong.py:{line}: error: {expected}")], said
