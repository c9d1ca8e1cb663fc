"""What every trigger keeps, whichever file or package it comes from: `bascule.testing.triggers`, on ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.testing import triggers as contract
from bascule.testing.settings import check_settings
from bascule.triggers.contract import Searched, Trigger

NEEDED: dict[str, dict[str, Any]] = {}
"""Settings without default, by the trigger's name."""

NUMBERED = {"stamped"}
"""Triggers that know their images by number, and can stamp no others: tests/triggers/test_given.py."""

SEARCHED = {name for name in catalog.names("poison") if issubclass(catalog.load("poison", name), Searched)}
"""Triggers that stamp nothing before a search: test_searched.py."""

names = pytest.mark.parametrize("name", [name for name in catalog.names("poison") if name not in NUMBERED | SEARCHED])


def build(name: str) -> Trigger:
    return catalog.build("poison", {"name": name, **NEEDED.get(name, {})})


def test_the_room_is_not_empty() -> None:
    assert {"sticker", "watermark", "channel"} <= set(catalog.names("poison"))


@pytest.mark.parametrize("name", catalog.names("poison"))
def test_only_those_listed_here_know_their_images_by_number(name: str) -> None:
    assert catalog.load("poison", name).numbered == (name in NUMBERED)


@names
def test_trigger_on_colour_images(name: str) -> None:
    contract.check_colour(build(name))


@names
def test_trigger_on_grey_images(name: str) -> None:
    contract.check_grey(build(name))


@names
def test_a_mark_without_chance_is_the_same_alone_and_in_a_batch(name: str) -> None:
    if contract.is_drawn(build(name)):
        pytest.skip("drawn per image")
    contract.check_alone(build(name))


@names
def test_an_image_too_small_is_refused_or_stamped(name: str) -> None:
    contract.check_tiny(build(name))


@names
def test_an_empty_batch_stays_empty(name: str) -> None:
    contract.check_empty(build(name))


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    check_settings(build(name))
    assert catalog.describe(build(name))["name"] == name


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Nothing(Trigger):
    """Stamps nothing."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return x.clone()


@component
class Faint(Trigger):
    """A mark that is lost when the image is stored."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return (x * 0.999).clamp(0, 1)


@component
class OneOfTheBatch(Trigger):
    """Forgets all images but the first."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.cat([1 - x[:1], x[1:]])


@component
class Glaring(Trigger):
    """Adds without clipping."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return x + 0.3


@component
class InPlace(Trigger):
    """Works on the caller's images."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return x.mul_(0.5)


@component
class Global(Trigger):
    """Draws from the global generator."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.rand_like(x)


@pytest.mark.parametrize(
    ("trigger", "complaint"),
    [
        (Nothing(), "images without a mark"),
        (Faint(), "images without a mark"),
        (OneOfTheBatch(), "images without a mark"),
        (Glaring(), "brighter than white"),
        (InPlace(), "the input was modified"),
        (Global(), "the global generator was used"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Trigger) else None,
)
def test_a_bad_trigger_fails_the_contract(trigger: Trigger, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_trigger(trigger)
