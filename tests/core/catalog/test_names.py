"""Components are found by scanning their rooms' folders and asking other packages."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bascule.triggers
from bascule.core import catalog
from bascule.core.catalog import build, describe
from bascule.core.errors import RequestError


@pytest.fixture
def copied_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the triggers, copied to where files can be added."""
    folder = tmp_path / "triggers"
    shutil.copytree(Path(bascule.triggers.__path__[0]), folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sys.modules["bascule.core.catalog.names"], "_ROOT", tmp_path)
    monkeypatch.setattr(bascule.triggers, "__path__", [str(folder)])
    catalog.names.cache_clear()
    importlib.invalidate_caches()
    yield folder
    catalog.names.cache_clear()
    sys.modules.pop("bascule.triggers.ink_blot", None)
    vars(bascule.triggers).pop("ink_blot", None)


def test_a_file_in_the_folder_is_a_component_unless_private(copied_room: Path, ink_blot: str) -> None:
    before = catalog.names("poison")
    (copied_room / "ink_blot.py").write_text(ink_blot)
    (copied_room / "_ink_well.py").write_text("raise RuntimeError")
    catalog.names.cache_clear()
    assert set(catalog.names("poison")) - set(before) == {"ink-blot"}
    blot = build("poison", {"name": "ink-blot", "size": 3})
    assert repr(blot) == "InkBlot(size=3)"
    assert describe(blot) == {"name": "ink-blot", "size": 3}
    assert build("poison", describe(blot)) == blot


def test_names_are_sorted_and_free_of_private_files() -> None:
    for room in catalog.ROOMS:
        names = catalog.names(room)
        assert names, room
        assert list(names) == sorted(names)
        assert not [name for name in names if name.startswith(("_", "-"))]


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ink_blot: str) -> Iterator[str]:
    """The name of a trigger that another package announces; its class has another name."""
    module = "bascule_test_plug_in"
    (tmp_path / f"{module}.py").write_text(ink_blot)
    announced = tmp_path / f"{module}-1.dist-info" / "entry_points.txt"
    announced.parent.mkdir()
    announced.write_text(f"[bascule.poison]\nspill = {module}:InkBlot\n")
    monkeypatch.syspath_prepend(tmp_path)
    catalog.names.cache_clear()
    yield "spill"
    catalog.names.cache_clear()
    sys.modules.pop(module, None)


def test_other_packages_add_components_through_entry_points(plug_in: str) -> None:
    assert plug_in in catalog.names("poison")
    assert plug_in not in catalog.names("attack")
    blot = build("poison", {"name": plug_in, "size": 5})
    assert blot.size == 5
    assert build("poison", describe(blot)) == blot
    shown = catalog.documentation("poison", plug_in)
    assert shown.summary == "Blackens a corner."
    assert [(field.name, field.default, field.text) for field in shown.fields] == [
        ("size", "2", "Side of the blot in pixels.")
    ]


def test_a_broken_plug_in_is_one_clear_refusal(plug_in: str, tmp_path: Path) -> None:
    (tmp_path / "bascule_test_plug_in.py").write_text("import a_module_that_is_nowhere")
    with pytest.raises(RequestError, match=r"cannot load poison/spill .*_is_nowhere' \(.*_plug_in.py, line 1\)$"):
        catalog.load("poison", plug_in)


def test_listing_names_and_documentation_imports_no_torch() -> None:
    code = """
import sys
from bascule.core import catalog
found = [catalog.documentation(room, name).summary for room in catalog.ROOMS for name in catalog.names(room)]
assert len(found) > 10 and all(found)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: catalog.names("poisons"), "unknown kind 'poisons'. Did you mean 'poison'?"),
        (lambda: catalog.load("poison", "stiker"), "unknown poison name 'stiker'. Did you mean 'sticker'?"),
        (lambda: catalog.load("poison", "_place"), "unknown poison name '_place'"),
        (lambda: catalog.documentation("poison", "stiker"), "unknown poison name 'stiker'. Did you mean 'sticker'?"),
        (lambda: catalog.documentation("poisons", "sticker"), "unknown kind 'poisons'"),
    ],
    ids=["room", "name", "private", "documentation-name", "documentation-room"],
)
def test_unknown_names_are_refused_with_the_nearest(call: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        call()
    assert said in str(caught.value)
