"""Networks and components of a user's own, named by module or file."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bascule.core import catalog
from bascule.core.catalog import build, describe
from bascule.core.errors import RequestError
from bascule.core.fingerprint import fingerprint
from bascule.models.contract import UserModel
from bascule.triggers.contract import Trigger

NETS = """\
from torch import nn


def linear(size, classes, width=4):
    channels, rows, columns = size
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * rows * columns, width), nn.Linear(width, classes))


number = 3
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a user's file `own_nets.py`."""
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("own_nets", None)


@pytest.mark.parametrize("factory", ["own_nets:linear", "own_nets.py:linear", "./own_nets.py:linear"])
def test_a_users_network_is_named_by_module_or_file(workplace: Path, factory: str) -> None:
    found = build("models", {"name": factory, "width": 6})
    assert isinstance(found, UserModel)
    assert found.settings == {"width": 6}
    assert found.build((1, 3, 3), 5)[1].weight.shape == (6, 9)
    assert describe(found)["name"] == factory
    assert build("models", describe(found)) == found


def test_two_files_of_the_same_name_do_not_answer_for_each_other(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build("models", "own_nets.py:linear")
    other = tmp_path_factory.mktemp("other")
    (other / "own_nets.py").write_text(NETS.replace("width=4", "width=7"))
    monkeypatch.chdir(other)
    second = build("models", "own_nets.py:linear")
    assert second.build((1, 2, 2), 3)[1].out_features == 7
    assert fingerprint("cell", first) != fingerprint("cell", second)


def test_changed_code_is_another_model(workplace: Path) -> None:
    old = build("models", {"name": "own_nets.py:linear", "width": 6})
    assert fingerprint("cell", build("models", {"name": "own_nets.py:linear", "width": 6})) == fingerprint("cell", old)
    (workplace / "own_nets.py").write_text(NETS.replace("width=4", "width=5"))
    new = build("models", {"name": "own_nets.py:linear", "width": 6})
    assert fingerprint("cell", new) != fingerprint("cell", old)
    with pytest.raises(RequestError, match=r"own_nets\.py:linear is not the factory this was made with"):
        build("models", describe(old))


@pytest.mark.parametrize(
    ("room", "name", "said"),
    [
        ("models", "own_nets.py:liner", "unknown name in own_nets.py 'liner'. Did you mean 'linear'?"),
        ("models", "own_nets.py:number", "'own_nets.py:number' is not a component of 'models'"),
        ("models", "nowhere.py:linear", "nowhere.py'; give module:attribute or path/to/file.py:attribute"),
        ("models", "nowhere.nets:linear", "cannot import 'nowhere.nets': ModuleNotFoundError"),
        ("models", ":linear", "cannot import ''"),
        ("poison", "own_nets.py:linear", "'own_nets.py:linear' is not a component of 'poison'"),
    ],
    ids=["attribute", "not-callable", "no-file", "no-module", "no-place", "wrong-room"],
)
def test_a_wrong_factory_is_refused(workplace: Path, room: str, name: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        build(room, name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import a_module_that_is_nowhere", "ModuleNotFoundError: No module named 'a_module_that_is_nowhere'"),
        ("def linear(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(2)", "SystemExit: 2"),
    ],
    ids=["import", "syntax", "runtime", "exit"],
)
@pytest.mark.parametrize("where", ["own_nets.py", "own_nets"], ids=["file", "module"])
def test_an_error_in_the_users_file_is_one_message(workplace: Path, code: str, said: str, where: str) -> None:
    (workplace / "own_nets.py").write_text(code)
    for _ in range(2):  # the half-imported module must not be taken for a good one the second time
        with pytest.raises(RequestError) as caught:
            build("models", f"{where}:linear")
        assert str(caught.value).startswith(f"cannot import '{where}': ")
        assert said in str(caught.value)
        assert re.search(r"own_nets\.py, line 1\)$", str(caught.value))
    (workplace / "own_nets.py").write_text(NETS)
    importlib.invalidate_caches()
    assert isinstance(build("models", f"{where}:linear"), UserModel)


def test_a_users_trigger_class_is_built_by_its_place(workplace: Path, ink_blot: str) -> None:
    (workplace / "own_triggers.py").write_text(ink_blot)
    blot = build("poison", {"name": "own_triggers.py:InkBlot", "size": 3})
    assert isinstance(blot, Trigger)
    assert blot.size == 3


TRIGGER = """
from bascule.core.catalog import component
from bascule.triggers.contract import Trigger

@component
class Brighter(Trigger):
    by: float = 0.1

    def stamp(self, x, *, generator):
        return (x + self.by).clamp(0, 1)
"""


def test_a_users_component_is_known_by_its_name_and_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(TRIGGER)
    Path("other.py").write_text(TRIGGER.replace("x + self.by", "x - self.by"))
    mine, other = (catalog.build("poison", {"name": f"{file}.py:Brighter", "by": 0.2}) for file in ("mine", "other"))
    description = catalog.describe(mine)
    assert description["name"] == "mine.py:Brighter"
    assert description["by"] == 0.2
    assert catalog.build("poison", description) == mine
    assert fingerprint("x", mine) != fingerprint("x", {**description, "code": catalog.describe(other)["code"]})
    with pytest.raises(RequestError, match="its code changed"):
        catalog.build("poison", {**description, "code": catalog.describe(other)["code"]})


def test_a_class_without_its_method_is_refused(tmp_path: Path) -> None:
    text = "from bascule.filters import Filter\nfrom bascule.core.catalog import component\n"
    (tmp_path / "half.py").write_text(f'{text}@component\nclass Half(Filter):\n    """Half done."""\n')
    with pytest.raises(RequestError, match=r"^Half lacks judge: see bascule/filters/contract.py$"):
        build("filter", f"{tmp_path}/half.py:Half")


def test_the_users_class_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TRIGGER)
    name = f"{tmp_path}/mine.py:Brighter"
    cls = catalog.load("poison", name)
    before = set(vars(cls))
    brighter = build("poison", name)
    assert type(brighter) is cls
    assert set(vars(cls)) == before
    child = type("Child", (cls,), {"__module__": "somewhere"})
    assert describe(brighter)["name"] == name
    assert catalog.name_of(child()) == "somewhere:Child"


def test_one_of_ours_keeps_its_name_when_it_is_asked_for_by_its_module() -> None:
    by_module = build("poison", "bascule.triggers.sticker:Sticker")
    assert describe(by_module) == describe(build("poison", "sticker"))
