"""Components are found by scanning, built from plain settings, and refused with the place and the nearest word."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import pytest

import bascule.poison
from bascule.attack import Attack
from bascule.attack.fgsm import Fgsm
from bascule.core import catalog
from bascule.core.catalog import Of, build, component, construct, describe
from bascule.core.errors import RequestError
from bascule.core.fingerprint import fingerprint
from bascule.models import UserModel
from bascule.poison import Trigger
from bascule.poison.placement import Poison
from bascule.poison.sticker import Sticker
from bascule.train.settings import Augment, Training
from bascule.train.standard import Standard

REQUIRED = {"eps": 0.1, "model": "resnet18", "path": "somewhere"}
"""A value for every setting without a default, by its name."""

EVERY = [(room, name) for room in catalog.ROOMS for name in catalog.names(room)]
every_component = pytest.mark.parametrize(("room", "name"), EVERY, ids=[f"{room}/{name}" for room, name in EVERY])

TRIGGER_FILE = '''\
"""A test trigger."""

from typing import Annotated

from annotated_types import Ge

from bascule import poison
from bascule.core.catalog import component


@component
class InkBlot(poison.Trigger):
    """Blackens a corner."""

    size: Annotated[int, Ge(1)] = 2
    """Side of the blot in pixels."""

    def stamp(self, x, *, generator):
        stamped = x.clone()
        stamped[:, :, : self.size, : self.size] = 0
        return stamped
'''

NETS = """\
from torch import nn


def linear(size, classes, width=4):
    channels, rows, columns = size
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * rows * columns, width), nn.Linear(width, classes))


number = 3
"""


def settings_of(room: str, name: str) -> dict[str, Any]:
    """The component's name and a value for each setting it requires."""
    fields = catalog.documentation(room, name).fields
    return {"name": name, **{field.name: REQUIRED[field.name] for field in fields if field.default is None}}


@component
class Several:
    """A component that holds several of a room."""

    attacks: Annotated[tuple[Attack, ...], Of("attack", many=True)] = ()
    levels: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the triggers, copied to where files can be added."""
    folder = tmp_path / "poison"
    shutil.copytree(Path(bascule.poison.__path__[0]), folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(catalog, "_ROOT", tmp_path)
    monkeypatch.setattr(bascule.poison, "__path__", [str(folder)])
    catalog.names.cache_clear()
    importlib.invalidate_caches()
    yield folder
    catalog.names.cache_clear()
    sys.modules.pop("bascule.poison.ink_blot", None)
    vars(bascule.poison).pop("ink_blot", None)


def test_a_file_in_the_folder_is_a_component_unless_private(copied_room: Path) -> None:
    before = catalog.names("poison")
    (copied_room / "ink_blot.py").write_text(TRIGGER_FILE)
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
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a trigger that another package announces; its class has another name."""
    module = "bascule_test_plug_in"
    (tmp_path / f"{module}.py").write_text(TRIGGER_FILE)
    entries = {"bascule.poison": [EntryPoint("spill", f"{module}:InkBlot", "bascule.poison")]}
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalog, "entry_points", lambda group: entries.get(group, []))
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
    with pytest.raises(RequestError, match=r"cannot load poison/spill .*No module named 'a_module_that_is_nowhere'"):
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


# --- building --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["sticker", {"name": "sticker"}, {"name": "sticker", "size": 3}, Sticker()], ids=str)
def test_a_name_a_mapping_and_an_instance_build_the_same(spec: Any) -> None:
    assert build("poison", spec) == Sticker()


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    sticker = build("poison", {"name": "sticker", "position": [2, 3], "color": [1, 0, 0.5]})
    assert sticker == Sticker(position=(2, 3), color=(1.0, 0.0, 0.5))
    attack = build("attack", {"name": "fgsm", "eps": 1})
    assert isinstance(attack.eps, float)
    assert fingerprint("attack", attack) == fingerprint("attack", Fgsm(eps=1.0))


def test_nested_components_are_built_from_names_mappings_and_instances() -> None:
    wanted = Poison(trigger=Sticker(size=2), target=7, rate=0.05)
    for trigger in ({"name": "sticker", "size": 2}, Sticker(size=2)):
        assert construct(Poison, {"trigger": trigger, "target": 7, "rate": 0.05}) == wanted
    training = construct(Training, {"objective": "standard", "epochs": 1, "augment": {"pad": 2}})
    assert training == Training(objective=Standard(), epochs=1, augment=Augment(pad=2))


def test_several_components_in_one_field() -> None:
    found = construct(Several, {"attacks": [{"name": "fgsm", "eps": 0.1}, Fgsm(eps=0.2)]})
    assert found.attacks == (Fgsm(eps=0.1), Fgsm(eps=0.2))
    assert construct(Several, {"attacks": {"name": "fgsm", "eps": 0.1}}).attacks == (Fgsm(eps=0.1),)
    assert construct(Several, {}).attacks == ()


def test_none_is_a_value_only_where_the_type_says_so() -> None:
    settings = {"trigger": "sticker", "target": 7, "rate": 0.05}
    assert construct(Poison, {**settings, "test_trigger": None}).test_trigger is None
    with pytest.raises(RequestError, match="expected a name or a mapping with the key 'name', got None") as caught:
        construct(Poison, {**settings, "trigger": None})
    assert caught.value.place == ("trigger",)


TRIGGER_PROBLEMS: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "unknown-name": ("stiker", (), "unknown poison name 'stiker'. Did you mean 'sticker'?"),
    "unknown-key": ({"name": "sticker", "sise": 3}, (), "unknown key 'sise'. Did you mean 'size'? Allowed: color,"),
    "unknown-key-not-a-word": ({"name": "sticker", 3: 4}, (), "unknown key '3'"),
    "unknown-value": (
        {"name": "sticker", "pattern": "cheker"},
        ("pattern",),
        "unknown value 'cheker'. Did you mean 'che",
    ),
    "unknown-value-of-two-lists": (
        {"name": "sticker", "position": "botom-right"},
        ("position",),
        "unknown value 'botom-right'. Did you mean 'bottom-right'? Allowed: bottom-left, bottom-right, center, random,",
    ),
    "word-expected": ({"name": "sticker", "pattern": 3}, ("pattern",), "must be 'solid' or 'checker'; got 3"),
    "no-name": ({"size": 3}, (), "expected a mapping with the key 'name', got {'size': 3}"),
    "name-not-a-word": ({"name": 3}, (), "expected a mapping with the key 'name', got {'name': 3}"),
    "number": (5, (), "expected a name or a mapping with the key 'name', got 5. Names: channel, "),
    "list": (["sticker"], (), "expected a name or a mapping with the key 'name', got ['sticker']"),
    "class-not-instance": (Sticker, (), "expected a name or a mapping"),
    "component-of-another-room": (Standard(), (), "expected a name or a mapping with the key 'name', got Standard()"),
    "bool-for-int": ({"name": "sticker", "size": True}, ("size",), "must be a valid integer; got True"),
    "float-for-int": ({"name": "sticker", "size": 3.0}, ("size",), "must be a valid integer; got 3.0"),
    "string-for-int": ({"name": "sticker", "size": "3"}, ("size",), "must be a valid integer; got '3'"),
    "bool-for-float": ({"name": "watermark", "strength": True}, ("strength",), "must be a valid number; got True"),
    "string-for-float": (
        {"name": "watermark", "strength": "1e-1"},
        ("strength",),
        "must be a valid number; got '1e-1'",
    ),
    "below": ({"name": "sticker", "size": 0}, ("size",), "must be greater than or equal to 1; got 0"),
    "above": ({"name": "watermark", "strength": 1.5}, ("strength",), "must be less than or equal to 1; got 1.5"),
    "not-a-number": (
        {"name": "watermark", "strength": float("nan")},
        ("strength",),
        "must be a finite number; got nan",
    ),
    "above-in-a-union": ({"name": "sticker", "color": 2.0}, ("color",), "must be less than or equal to 1; got 2.0"),
    "entry-of-a-union": (
        {"name": "sticker", "color": [1, 2, 0]},
        ("color[1]",),
        "must be less than or equal to 1; got 2",
    ),
    "entry-missing": ({"name": "sticker", "position": [4]}, ("position",), "needs more entries; got (4,)"),
    "entry-too-many": ({"name": "sticker", "position": [4, 4, 4]}, ("position",), "at most 2 items"),
    "none-of-a-union": (
        {"name": "sticker", "color": "red"},
        ("color",),
        "must be a valid number, or must be a list; got 'red'",
    ),
}


@pytest.mark.parametrize(("spec", "place", "said"), TRIGGER_PROBLEMS.values(), ids=TRIGGER_PROBLEMS.keys())
def test_what_is_wrong_is_said_with_its_place(spec: Any, place: tuple[str, ...], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        build("poison", spec)
    assert said in caught.value.problem
    assert caught.value.place == place
    assert "pydantic" not in str(caught.value)


GOOD = {"trigger": "sticker", "target": 7, "rate": 0.05}
TRAINING = {"objective": "standard", "epochs": 1}
NESTED_PROBLEMS: dict[str, tuple[type, Mapping[str, Any], tuple[str, ...], str]] = {
    "missing-key": (Poison, {"trigger": "sticker", "target": 7}, (), "the key 'rate' is missing"),
    "missing-key-inside": (Training, {"objective": "pgd", "epochs": 1}, ("objective",), "the key 'eps' is missing"),
    "unknown-before-missing": (Poison, {**GOOD, "rat": 1} | {"rate": None}, (), "unknown key 'rat'"),
    "nested-range": (Poison, {**GOOD, "trigger": {"name": "sticker", "size": 0}}, ("trigger", "size"), "got 0"),
    "nested-name": (Poison, {**GOOD, "trigger": "stiker"}, ("trigger",), "Did you mean 'sticker'?"),
    "nested-key": (Poison, {**GOOD, "trigger": {"name": "sticker", "sise": 1}}, ("trigger",), "unknown key 'sise'"),
    "nested-room": (Poison, {**GOOD, "trigger": "pgd"}, ("trigger",), "unknown poison name 'pgd'"),
    "nested-plain": (Training, {**TRAINING, "augment": {"pad": -1}}, ("augment", "pad"), "got -1"),
    "nested-plain-key": (Training, {**TRAINING, "augment": {"padd": 1}}, ("augment",), "Did you mean 'pad'?"),
    "nested-plain-type": (Training, {**TRAINING, "augment": "pad"}, ("augment",), "must be a mapping of settings"),
    "entry-of-entry": (
        Training,
        {**TRAINING, "schedule": "piecewise", "milestones": [[0, 1], [5, -1]]},
        ("milestones[1][1]",),
        "must be greater than or equal to 0; got -1",
    ),
    "combination": (Training, {**TRAINING, "milestones": [[0, 1]]}, (), "used by schedule piecewise only"),
    "one-of-several": (
        Several,
        {"attacks": [{"name": "fgsm", "eps": 1}, {"name": "fgsm"}]},
        ("attacks[1]",),
        "'eps' is",
    ),
    "inside-a-mapping": (Several, {"levels": {"a": [1, "x"]}}, ("levels", "a[1]"), "must be a valid integer; got 'x'"),
    "infinite": (Training, {**TRAINING, "lr": float("inf")}, ("lr",), "must be a finite number; got inf"),
}


@pytest.mark.parametrize(("cls", "settings", "place", "said"), NESTED_PROBLEMS.values(), ids=NESTED_PROBLEMS.keys())
def test_the_place_leads_to_the_nested_value(
    cls: type, settings: Mapping[str, Any], place: tuple[str, ...], said: str
) -> None:
    with pytest.raises(RequestError) as caught:
        construct(cls, settings)
    assert said in caught.value.problem
    assert caught.value.place == place
    assert str(caught.value).startswith(".".join(place))


def test_callers_further_out_prefix_their_keys() -> None:
    with pytest.raises(RequestError) as caught:
        construct(Poison, {**GOOD, "trigger": {"name": "sticker", "size": 0}})
    further = caught.value.at("rows", "None", "poison")
    assert further.place == ("rows", "None", "poison", "trigger", "size")
    assert str(further) == "rows.None.poison.trigger.size: must be greater than or equal to 1; got 0"


def test_a_component_of_another_room_named_by_its_module_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'bascule\.train\.standard:Standard' is not a component of 'poison'"):
        build("poison", "bascule.train.standard:Standard")


# --- components ------------------------------------------------------------------------------------------------------


@every_component
def test_description_and_repr_rebuild_every_component(room: str, name: str) -> None:
    made = build(room, settings_of(room, name))
    assert describe(made)["name"] == name
    assert build(room, describe(made)) == made
    assert eval(repr(made), classes_in(made)) == made


def classes_in(made: Any) -> dict[str, type]:
    """The component's class and those of the components it holds, by the names that `repr` writes."""
    inner = [getattr(made, field.name) for field in dataclasses.fields(made)]
    parts = [part for part in inner if dataclasses.is_dataclass(part)]
    return {type(made).__name__: type(made)} | {name: kind for part in parts for name, kind in classes_in(part).items()}


@every_component
def test_every_component_is_frozen_and_takes_keywords_only(room: str, name: str) -> None:
    made = build(room, settings_of(room, name))
    for field in dataclasses.fields(made):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, getattr(made, field.name))
    with pytest.raises(RequestError, match="Unexpected positional argument"):
        type(made)(0)


def test_a_variant_is_checked_like_the_original() -> None:
    sticker = Sticker(size=2)
    assert dataclasses.replace(sticker, size=4) == Sticker(size=4)
    assert sticker == Sticker(size=2)
    with pytest.raises(RequestError, match="greater than or equal to 1"):
        dataclasses.replace(sticker, size=0)
    with pytest.raises(RequestError, match="needs milestones"):
        dataclasses.replace(Training(objective=Standard(), epochs=1), schedule="piecewise")


def test_a_field_without_plain_description_is_our_own_error() -> None:
    @component
    class Odd:
        path: Path

    with pytest.raises(TypeError, match="holds PosixPath, which has no plain description"):
        describe(Odd(path=Path("/")))


@every_component
def test_every_setting_is_documented(room: str, name: str) -> None:
    shown = catalog.documentation(room, name)
    cls = catalog.load(room, name)
    assert shown.summary
    assert " ".join(shown.text.split()).startswith(shown.summary)
    assert shown.summary[-1] in ".?"
    assert [field.name for field in shown.fields] == [field.name for field in dataclasses.fields(cls)]
    assert {field.name: field.text for field in shown.fields if len(field.text) < 10} == {}
    no_default = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert {field.name for field in shown.fields if field.default is None} == no_default


def test_documentation_lists_inherited_settings_first_with_type_and_default() -> None:
    eps, steps = (
        next(field for field in catalog.documentation("attack", "pgd").fields if field.name == name)
        for name in ("eps", "steps")
    )
    assert (eps.type, eps.default, eps.text) == ("Eps", None, "Radius of the ball in [0, 1] pixel units.")
    assert (steps.type, steps.default, steps.text) == ("Annotated[int, Ge(1)]", "20", "Gradient steps per try.")


# --- a user's own code -----------------------------------------------------------------------------------------------


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
    (workplace / "own_nets.py").write_text(NETS + "\n# another thought\n")
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
    ],
    ids=["import", "syntax", "runtime"],
)
@pytest.mark.parametrize("where", ["own_nets.py", "own_nets"], ids=["file", "module"])
def test_an_error_in_the_users_file_is_one_message(workplace: Path, code: str, said: str, where: str) -> None:
    (workplace / "own_nets.py").write_text(code)
    for _ in range(2):  # the half-imported module must not be taken for a good one the second time
        with pytest.raises(RequestError) as caught:
            build("models", f"{where}:linear")
        assert str(caught.value).startswith(f"cannot import '{where}': ")
        assert said in str(caught.value)
    (workplace / "own_nets.py").write_text(NETS)
    importlib.invalidate_caches()
    assert isinstance(build("models", f"{where}:linear"), UserModel)


def test_a_users_trigger_class_is_built_by_its_place(workplace: Path) -> None:
    (workplace / "own_triggers.py").write_text(TRIGGER_FILE)
    blot = build("poison", {"name": "own_triggers.py:InkBlot", "size": 3})
    assert isinstance(blot, Trigger)
    assert blot.size == 3


TRIGGER = """
from bascule.core.catalog import component
from bascule.poison import Trigger

@component
class Brighter(Trigger):
    by: float = 0.1

    def stamp(self, x, *, generator):
        return (x + self.by).clamp(0, 1)
"""


def test_a_users_component_is_known_by_its_name_and_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(TRIGGER)
    Path("other.py").write_text(TRIGGER + "# changed\n")
    mine, other = (catalog.build("poison", {"name": f"{file}.py:Brighter", "by": 0.2}) for file in ("mine", "other"))
    description = catalog.describe(mine)
    assert description["name"] == "mine.py:Brighter"
    assert description["by"] == 0.2
    assert catalog.build("poison", description) == mine
    assert fingerprint("x", mine) != fingerprint("x", {**description, "code": catalog.describe(other)["code"]})
    with pytest.raises(RequestError, match="its code changed"):
        catalog.build("poison", {**description, "code": catalog.describe(other)["code"]})


def test_a_class_without_its_method_is_refused(tmp_path: Path) -> None:
    text = "from bascule.filter import Filter\nfrom bascule.core.catalog import component\n"
    (tmp_path / "half.py").write_text(f'{text}@component\nclass Half(Filter):\n    """Half done."""\n')
    with pytest.raises(RequestError, match=r"^Half lacks judge: see bascule/filter/__init__.py$"):
        build("filter", f"{tmp_path}/half.py:Half")
