"""What is wrong is said with its place and the nearest word."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import pytest

from bascule.attacks.contract import Attack
from bascule.core.catalog import Of, build, component, construct
from bascule.core.errors import RequestError
from bascule.plan.schema import Setup
from bascule.training.settings import Training
from bascule.training.standard import Standard
from bascule.triggers.contract import Trigger
from bascule.triggers.placement import Poison
from bascule.triggers.several import SeveralPoisons
from bascule.triggers.sticker import Sticker


@component
class Several:
    """A component that holds several of a room."""

    attacks: Annotated[tuple[Attack, ...], Of("attack", many=True)] = ()
    levels: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


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
    "word-expected": (
        {"name": "sticker", "pattern": 3},
        ("pattern",),
        "must be 'solid', 'checker' or 'coarse-checker'; got 3",
    ),
    "no-name": ({"size": 3}, (), "expected a mapping with the key 'name', got {'size': 3}"),
    "name-not-a-word": ({"name": 3}, (), "expected a mapping with the key 'name', got {'name': 3}"),
    "number": (5, (), "expected a name or a mapping with the key 'name', got 5. Names: adaptive-blend, "),
    "list": (["sticker"], (), "expected a name or a mapping with the key 'name', got ['sticker']"),
    "class-not-instance": (Sticker, (), "Sticker is a class: give one that is made of it, Sticker(...), or its name. "),
    "abstract": (Trigger, (), "Trigger is abstract, what all of the kind 'poison' have in common: give one of them. "),
    "component-of-another-room": (
        Standard(),
        (),
        "expected one of the kind 'poison', got Standard, which is of the kind 'train'. Names: ",
    ),
    "class-of-another-room": (Standard, (), "expected one of the kind 'poison', got Standard, which is of the kind"),
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
    "entry-missing": ({"name": "sticker", "position": [4]}, ("position",), "needs more entries; got [4]"),
    "entry-too-many": ({"name": "sticker", "position": [4, 4, 4]}, ("position",), "at most 2 entries"),
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
    "nested-plain-type": (
        Training,
        {**TRAINING, "augment": "pad"},
        ("augment",),
        "must be a mapping of settings (resized_crop,",
    ),
    "nested-plain-number": (
        Training,
        {**TRAINING, "awp": 0.005},
        ("awp",),
        "settings (gamma, warmup; {} for the default of each); got",
    ),
    "nested-deeper": (
        Training,
        {**TRAINING, "augment": {"resized_crop": True}},
        ("augment", "resized_crop"),
        "settings (scale, ratio; {} for",
    ),
    "nested-of-several": (
        SeveralPoisons,
        {"name": "several", "parts": ["sticker", GOOD]},
        ("parts[0]",),
        "settings (trigger, target, label",
    ),
    "too-many-entries": (
        Training,
        {**TRAINING, "augment": {"resized_crop": {"scale": [0.1, 0.5, 1]}}},
        ("augment", "resized_crop", "scale"),
        "must be a list of at most 2 entries, not 3; got [0.1, 0.5, 1]",
    ),
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
    with pytest.raises(RequestError, match=r"'bascule\.training\.standard:Standard' is not a component of 'poison'"):
        build("poison", "bascule.training.standard:Standard")


@pytest.mark.parametrize(
    ("poison", "place", "said"),
    [
        (
            "badnets",
            ("poison", "name"),
            "'badnets' is poison/sticker, with `label: dirty`. What is of poison goes under",
        ),
        (
            {"name": "sticker", "target": 7},
            ("poison", "name"),
            "'sticker' is poison/sticker, which goes under `trigger:`.",
        ),
        ({"name": "givn", "path": "a.npz"}, ("poison", "name"), "Did you mean 'given'?"),
        ({"path": "a.npz"}, ("poison",), "unknown key 'path'. 'path' goes with `name: given`."),
        ({**GOOD, "indices": "a.txt"}, ("poison",), "'indices' goes with `name: given`."),
        ({"name": "given", "target": 7, "rate": 0.1}, ("poison",), "'rate' goes without `name: given`."),
        ({**GOOD, "rat": 0.1}, ("poison",), "Did you mean 'rate'?"),
        ("given", ("poison", "target"), "it does not tell the class that is aimed at"),
        ({**GOOD, "trigger": "given"}, ("poison", "trigger"), "'given' stands in place of one"),
    ],
)
def test_settings_of_one_of_several_sorts_lead_to_its_name(poison: Any, place: tuple[str, ...], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        construct(Setup, {"data": "digits", "model": "digits-cnn", "train": TRAINING, "poison": poison})
    assert said in caught.value.problem
    assert caught.value.place == place
