"""What every trigger keeps, whichever file or package it comes from."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import as_floats
from bascule.core.rng import stream
from bascule.triggers.contract import Searched, Trigger
from triggers import SIDES, check_trigger, stamp

NEEDED: dict[str, dict[str, Any]] = {}
"""Settings without default, by the trigger's name."""

NUMBERED = {"stamped"}
"""Triggers that know their images by number, and can stamp no others: tests/triggers/test_given.py."""

SEARCHED = {name for name in catalog.names("poison") if issubclass(catalog.load("poison", name), Searched)}
"""Triggers that stamp nothing before a search: test_searched.py."""

names = pytest.mark.parametrize("name", [name for name in catalog.names("poison") if name not in NUMBERED | SEARCHED])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def build(name: str) -> Trigger:
    return catalog.build("poison", {"name": name, **NEEDED.get(name, {})})


def noise(count: int = 6, *, channels: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random images whose values are whole 255ths, as after reading a file."""
    pixels = torch.randint(256, (count, channels, *SIDES), generator=stream(0, "images"), dtype=torch.uint8)
    return as_floats(pixels).to(dtype)


def stamp_or_refuse(trigger: Trigger, x: Tensor) -> Tensor | str:
    """Stamped images, or the text of the refusal; any other error is one."""
    try:
        return stamp(trigger, x)
    except RequestError as error:
        return str(error)


def test_the_room_is_not_empty() -> None:
    assert {"sticker", "watermark", "channel"} <= set(catalog.names("poison"))


@pytest.mark.parametrize("name", catalog.names("poison"))
def test_only_those_listed_here_know_their_images_by_number(name: str) -> None:
    assert catalog.load("poison", name).numbered == (name in NUMBERED)


@names
@dtypes
def test_trigger_on_colour_images(name: str, dtype: torch.dtype) -> None:
    check_trigger(build(name), noise(dtype=dtype))


@names
@dtypes
def test_trigger_on_grey_images(name: str, dtype: torch.dtype) -> None:
    x = noise(channels=1, dtype=dtype)
    answer = stamp_or_refuse(build(name), x)
    if isinstance(answer, str):
        assert "3 channels" in answer
    else:
        check_trigger(build(name), x)


@names
def test_a_mark_without_chance_is_the_same_alone_and_in_a_batch(name: str) -> None:
    trigger, x = build(name), noise()
    together = stamp(trigger, x)
    if not torch.equal(stamp(trigger, x, seed=1), together):
        pytest.skip("drawn per image")
    alone = torch.cat([stamp(trigger, image) for image in x.split(1)])
    assert torch.equal(alone, together)


@names
def test_an_image_too_small_is_refused_or_stamped(name: str) -> None:
    x = noise()[:, :, :1, :1]
    answer = stamp_or_refuse(build(name), x)
    if isinstance(answer, str):
        assert "1 x 1" in answer
    else:
        assert answer.shape == x.shape


@names
def test_an_empty_batch_stays_empty(name: str) -> None:
    assert build(name).stamp(noise()[:0], generator=stream(0, "contract")).shape == (0, 3, *SIDES)


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    trigger = build(name)
    described = catalog.describe(trigger)
    assert described["name"] == name
    assert catalog.build("poison", described) == trigger
    assert eval(repr(trigger), vars(sys.modules[type(trigger).__module__])) == trigger


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
        check_trigger(trigger, noise())
