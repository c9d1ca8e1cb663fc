"""Components are built from names, mappings and instances, and described so that they can be built again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import pytest

from bascule.attacks.contract import Attack
from bascule.attacks.fgsm import Fgsm
from bascule.core.catalog import Of, build, component, construct, describe
from bascule.core.errors import RequestError
from bascule.core.fingerprint import fingerprint
from bascule.training.settings import Augment, Training
from bascule.training.standard import Standard
from bascule.triggers.placement import Poison
from bascule.triggers.sticker import Sticker


@component
class Several:
    """A component that holds several of a room."""

    attacks: Annotated[tuple[Attack, ...], Of("attack", many=True)] = ()
    levels: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


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


def test_description_and_repr_rebuild_every_component(each: Any) -> None:
    made = build(each.room, each.settings())
    assert describe(made)["name"] == each.name
    assert build(each.room, describe(made)) == made
    assert eval(repr(made), classes_in(made)) == made


def classes_in(made: Any) -> dict[str, type]:
    """The component's class and those of the components it holds, by the names that `repr` writes."""
    inner = [getattr(made, field.name) for field in dataclasses.fields(made)]
    several = [part for value in inner for part in (value if isinstance(value, tuple) else (value,))]
    parts = [part for part in several if dataclasses.is_dataclass(part)]
    return {type(made).__name__: type(made)} | {name: kind for part in parts for name, kind in classes_in(part).items()}


def test_every_component_is_frozen_and_takes_keywords_only(each: Any) -> None:
    made = build(each.room, each.settings())
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
