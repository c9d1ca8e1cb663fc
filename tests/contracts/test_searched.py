"""What every trigger keeps that is searched for on a proxy: `bascule.testing.searched`, on ours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.testing import searched as contract
from bascule.testing.settings import check_settings
from bascule.testing.triggers import check_trigger
from bascule.triggers.contract import Found, Searched, Trigger

QUICK: dict[str, dict[str, Any]] = {
    "input-aware": {"steps": 20, "mask_steps": 40, "batch_size": 16, "width": 4},
    "sleeper-agent": {"steps": 10, "retrain": 1, "retrain_steps": 5},
}
"""Settings with which the search for a trigger takes seconds and still leaves a visible mark, by the trigger's name."""

SEARCHED = [name for name in catalog.names("poison") if issubclass(catalog.load("poison", name), Searched)]

searched = pytest.mark.parametrize("name", SEARCHED)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@functools.cache
def found(name: str, channels: int = 3) -> tuple[Searched, Found]:
    """The trigger and what its search found, whose contract holds."""
    trigger = catalog.build("poison", {"name": name, **QUICK.get(name, {})})
    return trigger, contract.check_search(trigger, channels)


@searched
@dtypes
def test_a_found_trigger_on_colour_images(name: str, dtype: torch.dtype) -> None:
    contract.check_found(*found(name), dtype=dtype)


@searched
def test_a_found_trigger_on_grey_images(name: str) -> None:
    contract.check_found(*found(name, 1), channels=1)


@searched
def test_a_found_trigger_without_chance_is_the_same_alone_and_in_a_batch(name: str) -> None:
    contract.check_alone(*found(name))


@searched
def test_a_found_trigger_leaves_an_empty_batch_empty(name: str) -> None:
    contract.check_empty(*found(name))


@searched
def test_before_the_search_it_stamps_nothing_but_says_so(name: str) -> None:
    contract.check_unsearched(found(name)[0])


@searched
def test_what_test_images_show_is_said_before_the_search_where_that_needs_none(name: str) -> None:
    contract.check_at_test(*found(name))


@searched
def test_description_and_repr_rebuild_the_search(name: str) -> None:
    check_settings(found(name)[0])


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
        check_trigger(trigger)


def test_a_found_trigger_that_is_not_rebuilt_fails_the_contract() -> None:
    @component
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
        check_trigger(trigger)


def test_a_good_search_passes() -> None:
    trigger = SearchedFor()
    check_trigger(trigger)
