"""What every trigger keeps that is searched for on a proxy, whichever file or package it comes from."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import networks
from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, as_bytes
from bascule.core.rng import borrowed_global_stream, stream
from bascule.triggers.contract import Found, Searched, Trigger
from triggers import SIDES, Place, check_trigger, stamp

QUICK: dict[str, dict[str, Any]] = {
    "input-aware": {"steps": 20, "mask_steps": 40, "batch_size": 16, "width": 4},
    "sleeper-agent": {"steps": 10, "retrain": 1, "retrain_steps": 5},
}
"""Settings with which the search for a trigger takes seconds and still leaves a visible mark, by the trigger's name."""

SEARCHED = [name for name in catalog.names("poison") if issubclass(catalog.load("poison", name), Searched)]

searched = pytest.mark.parametrize("name", SEARCHED)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

TARGET = 1
"""The class that searches aim at."""


@functools.cache
def training_set(channels: int) -> Images:
    """40 random images of four classes; nobody may change them."""
    pixels = torch.randint(256, (40, channels, *SIDES), generator=stream(1, "images"), dtype=torch.uint8)
    labels = torch.arange(40) % 4
    return Images(pixels=pixels, labels=labels, ids=100 + torch.arange(40), classes=("a", "b", "c", "d"))


@functools.cache
def proxy(channels: int) -> nn.Module:
    """A network that knows some of them; searches get copies."""
    with borrowed_global_stream(0, "proxy"):
        net = networks.plain((channels, *SIDES), 4)
    images, adam = training_set(channels), torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(10):
        logits = net(images.batch(torch.arange(40)))
        adam.zero_grad()
        torch.nn.functional.cross_entropy(logits, images.labels).backward()
        adam.step()
    return net.eval()


def chosen(images: Images) -> Tensor:
    """Positions of what will be stamped: six of the ten images of the target class."""
    return images.labels.eq(TARGET).nonzero().squeeze(1)[:6]


def search(trigger: Searched, channels: int = 3) -> Found:
    """What a search finds; with the images, and torch's own state, checked to be as they were."""
    images, net = training_set(channels).at(torch.arange(40)), copy.deepcopy(proxy(channels))
    assert isinstance(images.pixels, Tensor)
    before, state, grad = images.pixels.clone(), torch.get_rng_state(), torch.is_grad_enabled()
    what = trigger.search(net, images, chosen(images), TARGET, generator=stream(0, "search"))
    assert torch.equal(images.pixels, before), "the images were modified"
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert torch.is_grad_enabled() == grad, "gradients were switched on or off"
    return what


def check_search(trigger: Searched, channels: int = 3) -> Found:
    """The contract of a search: what it finds is there, can be kept, and is the same each time."""
    what, again = search(trigger, channels), search(trigger, channels)
    assert what, "nothing was found"
    for name, value in what.items():
        assert not value.requires_grad, f"{name} wants a gradient"
        assert value.isfinite().all(), f"{name} is not finite"
        assert name in again, f"the same stream finds no {name}"
        assert torch.equal(value, again[name]), f"the same stream finds another {name}"
    with torch.no_grad():
        assert all(torch.equal(value, what[name]) for name, value in search(trigger, channels).items())
    return what


def kept(what: Found) -> Found:
    """What a record gives back: floats of 32 bits, on the processor."""
    return {name: value.cpu().float() if value.is_floating_point() else value.cpu() for name, value in what.items()}


def check_found(trigger: Searched, what: Found, channels: int = 3, dtype: torch.dtype = torch.float32) -> None:
    """The contract of what was found: two triggers, which a record of it rebuilds to the byte."""
    images = training_set(channels)
    place = Place(images, chosen(images))
    x = images.batch(place.index).to(dtype)
    shown, rebuilt = trigger.found(what), trigger.found(kept(what))
    check_trigger(shown, x, place)
    check_trigger(shown.at_test, x)
    for one, other, where in ((shown, rebuilt, place), (shown.at_test, rebuilt.at_test, None)):
        same = torch.equal(as_bytes(stamp(one, x, place=where)), as_bytes(stamp(other, x, place=where)))
        assert same, "what is kept of it stamps otherwise"


@functools.cache
def found(name: str, channels: int = 3) -> tuple[Searched, Found]:
    """The trigger and what its search found, whose contract holds."""
    trigger = catalog.build("poison", {"name": name, **QUICK.get(name, {})})
    return trigger, check_search(trigger, channels)


@searched
@dtypes
def test_a_found_trigger_on_colour_images(name: str, dtype: torch.dtype) -> None:
    check_found(*found(name), dtype=dtype)


@searched
def test_a_found_trigger_on_grey_images(name: str) -> None:
    check_found(*found(name, 1), channels=1)


@searched
def test_a_found_trigger_without_chance_is_the_same_alone_and_in_a_batch(name: str) -> None:
    trigger, what = found(name)
    shown, images = trigger.found(what), training_set(3)
    place = Place(images, chosen(images))
    for part, where in ((shown, place), (shown.at_test, None)):
        x = images.batch(place.index)
        together = stamp(part, x, place=where)
        if not torch.equal(stamp(part, x, seed=1, place=where), together):
            continue  # drawn per image
        alone = [
            stamp(part, image, place=where and Place(images, at))
            for image, at in zip(x.split(1), place.index.split(1), strict=True)
        ]
        assert torch.allclose(torch.cat(alone), together, atol=1e-6)  # a network may be part of it


@searched
def test_a_found_trigger_leaves_an_empty_batch_empty(name: str) -> None:
    trigger, what = found(name)
    images, none = training_set(3), torch.empty(0, dtype=torch.int64)
    shown, x = trigger.found(what), images.batch(none)
    assert stamp(shown, x, place=Place(images, none)).shape == (0, 3, *SIDES)
    assert stamp(shown.at_test, x).shape == (0, 3, *SIDES)


@searched
def test_before_the_search_it_stamps_nothing_but_says_so(name: str) -> None:
    trigger, _ = found(name)
    with pytest.raises(RequestError, match="searched for"):
        stamp(trigger, torch.rand(2, 3, *SIDES, generator=stream(0, "images")))


@searched
def test_what_test_images_show_is_said_before_the_search_where_that_needs_none(name: str) -> None:
    trigger, what = found(name)
    if isinstance(trigger.at_test, Searched):
        assert trigger.at_test == trigger
    else:
        assert trigger.found(what).at_test == trigger.at_test


@searched
def test_description_and_repr_rebuild_the_search(name: str) -> None:
    trigger, _ = found(name)
    assert catalog.build("poison", catalog.describe(trigger)) == trigger
    assert eval(repr(trigger), vars(sys.modules[type(trigger).__module__])) == trigger


# --- the contract itself ---------------------------------------------------------------------------------------------


class Added(Trigger):
    """A pattern that is added."""

    def __init__(self, pattern: Tensor) -> None:
        object.__setattr__(self, "pattern", pattern)

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        pattern: Tensor = self.pattern  # type: ignore[attr-defined]
        return (x + pattern.to(x)).clamp(0, 1)


@component
class SearchedFor(Searched):
    """Finds a pattern as it should; the bad ones below begin here."""

    def search(
        self, proxy: nn.Module, images: Images, chosen: Tensor, target: int, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        return {"pattern": 0.5 * torch.rand(images.size, generator=generator)}

    def found(self, what: Found) -> Trigger:
        return Added(what["pattern"])


def searching(find: Callable[..., dict[str, Tensor]]) -> Searched:
    """The same with another search: (images, generator) -> what it finds."""

    @component
    class Bad(SearchedFor):
        """One of the bad ones."""

        def search(
            self, proxy: nn.Module, images: Images, chosen: Tensor, target: int, *, generator: torch.Generator
        ) -> dict[str, Tensor]:
            return find(images, generator)

    return Bad()


def changes_images(images: Images, generator: torch.Generator) -> dict[str, Tensor]:
    assert isinstance(images.pixels, Tensor)
    images.pixels[0] = images.pixels[0] + 1
    return {"pattern": torch.ones(images.size)}


def own_chance(images: Images, generator: torch.Generator) -> dict[str, Tensor]:
    unseeded = torch.Generator()
    unseeded.seed()
    return {"pattern": torch.rand(images.size, generator=unseeded)}


@pytest.mark.parametrize(
    ("find", "complaint"),
    [
        (lambda images, _: {}, "nothing was found"),
        (changes_images, "the images were modified"),
        (own_chance, "the same stream finds another pattern"),
        (lambda images, _: {"pattern": torch.rand(images.size)}, "the global generator was used"),
        (lambda images, _: {"pattern": torch.ones(images.size).requires_grad_()}, "wants a gradient"),
        (lambda images, _: {"pattern": torch.full(images.size, torch.nan)}, "not finite"),
        (lambda images, _: {"pattern": torch.zeros(images.size)}, "images without a mark"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_search_fails_the_contract(find: Callable[..., dict[str, Tensor]], complaint: str) -> None:
    trigger = searching(find)
    with pytest.raises(AssertionError, match=complaint):
        check_found(trigger, check_search(trigger))


def test_a_found_trigger_that_is_not_rebuilt_fails_the_contract() -> None:
    class Forgetful(SearchedFor):
        """Gives another pattern each time."""

        def found(self, what: Found) -> Trigger:
            pattern = what["pattern"]
            return Added(pattern if pattern.dtype == torch.float64 else pattern + 0.1)

        def search(
            self, proxy: nn.Module, images: Images, chosen: Tensor, target: int, *, generator: torch.Generator
        ) -> dict[str, Tensor]:
            return {"pattern": torch.full(images.size, 0.2, dtype=torch.float64)}

    trigger = Forgetful()
    with pytest.raises(AssertionError, match="what is kept of it stamps otherwise"):
        check_found(trigger, check_search(trigger))


def test_a_good_search_passes() -> None:
    trigger = SearchedFor()
    check_found(trigger, check_search(trigger))
