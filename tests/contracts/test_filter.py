"""What every data defence keeps, whichever file or package it comes from: `bascule.testing.filters`, on ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.filters.contract import Filter, Judged, LayerFilter
from bascule.testing import filters as contract
from bascule.testing.settings import check_settings

NAMES = catalog.names("filter")
names = pytest.mark.parametrize("name", NAMES)

SETTINGS: dict[str, dict[str, Any]] = {
    # 140 images a class: ten independent components single out lone images.
    "activation-clustering": {"dimensions": 5},
    # 1,437 images make few steps; with them a floor under the loss hides what is learned first.
    "early-loss": {"epochs": 3, "batch_size": 32, "lr": 5e-3, "gamma": 0.0},
}
"""Settings other than the defaults where the digits are too few for these."""

MOST_ON_CLEAN: dict[str, float] = {
    "activation-clustering": 0.35,  # the smaller cluster of every class, at most `max_share`
    "early-loss": 0.051,  # always `share`
    "frequency": 0.4,  # strokes of 8 x 8 digits look tampered with: a sixth to a quarter is taken
    "gram": 0.03,
    "neighbours": 0.04,
    "spectral-signatures": 0.151,  # always factor x rate of each class
    "spectre": 0.02,  # always factor x rate of one class
    "strip": 0.05,  # `false_alarms` 0.01, if the entropies were normally distributed
    "two-component": 0.05,  # half a class
}
"""Largest share that may be removed from unpoisoned digits."""


def build(name: str, **settings: Any) -> Filter:
    return catalog.build("filter", {"name": name, **SETTINGS.get(name, {}), **settings})


def test_the_room_is_not_empty() -> None:
    assert set(NAMES) >= set(MOST_ON_CLEAN)


@names
def test_filter(name: str) -> None:
    contract.check_verdict(build(name))


@names
def test_unpoisoned_data_lose_no_more_than_the_rule_says(name: str) -> None:
    contract.check_clean(build(name), MOST_ON_CLEAN.get(name, 0.2))


def build_for_few(name: str, **settings: Any) -> Filter:
    return build(name, **({"k": 10} if name == "neighbours" else {}), **settings)


@names
def test_the_model_is_left_as_found(name: str) -> None:
    contract.check_model(build_for_few(name))


@names
def test_same_stream_same_answer_on_colour_images_and_tiny_classes(name: str) -> None:
    contract.check_repeats(build_for_few(name))


@names
def test_images_of_one_colour_and_one_class_are_no_error(name: str) -> None:
    contract.check_plain(build_for_few(name))


CANNOT_ACT: dict[str, dict[str, Any]] = {
    "activation-clustering": {},
    "early-loss": {"share": 0.02},
    "gram": {},
    "spectral-signatures": {},
    "spectre": {},
    "two-component": {},
}
"""Settings with which a rule can remove none of nine images in three classes of three."""


@pytest.mark.parametrize("name", CANNOT_ACT)
def test_a_rule_that_cannot_act_says_so(name: str) -> None:
    contract.check_idle(build_for_few(name, **CANNOT_ACT[name]))


@names
def test_a_rule_that_can_act_says_nothing(name: str) -> None:
    contract.check_notes(build(name))


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(build(name), LayerFilter)])
def test_any_layer_can_be_looked_at_and_no_other(name: str) -> None:
    made = build_for_few(name)
    assert isinstance(made, LayerFilter)
    contract.check_layers(made)


# --- configuration ---------------------------------------------------------------------------------------------------


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    check_settings(build(name))
    assert catalog.describe(build(name))["name"] == name


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Nothing(Filter):
    """Finds nobody suspicious."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        return Judged(torch.zeros(len(images)), torch.zeros(len(images), dtype=torch.bool))


@component
class Guess(Filter):
    """Suspects at random."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        score = torch.rand(len(images), generator=generator)
        return Judged(score, score > 0.9)


@component
class InPlace(Filter):
    """Works on the caller's labels."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        images.labels.zero_()
        return Judged(torch.zeros(len(images)), torch.zeros(len(images), dtype=torch.bool))


@component
class Global(Filter):
    """Draws from the global generator."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        return Judged(torch.rand(len(images)), torch.zeros(len(images), dtype=torch.bool))


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (Nothing, "no better than chance"),
        (Guess, "no better than chance"),
        (InPlace, "labels were modified"),
        (Global, "global generator"),
    ],
    ids=["nothing", "guess", "in-place", "global"],
)
def test_a_bad_filter_fails_the_contract(bad: type[Filter], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_filter(bad())
