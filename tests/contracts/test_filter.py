"""What every data defence keeps, whichever file or package it comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.rng import stream
from bascule.filters.contract import Filter, Judged, LayerFilter
from bascule.filters.run import run_filter
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison

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


class Case(NamedTuple):
    """A set, a model with ordinary training on it, and the truth, which no filter is given."""

    model: nn.Module
    images: Images
    poisoned: Tensor


def make_case(digits: Splits, rate: float) -> Case:
    """Digits with a white square on `rate` of them, relabelled as threes: a third of the threes at rate 0.05."""
    trigger = catalog.build("poison", {"name": "sticker", "size": 3})
    poison = Poison(trigger=trigger, target=3, rate=rate, label="dirty")
    images, truth = poison.plant(digits.train, generator=stream(0, "poison"))
    net = catalog.build("models", {"name": "digits-cnn", "width": 16, "hidden": 64}).initialised((1, 8, 8), 10, seed=0)
    train(net, images, Training(objective=catalog.build("train", "standard"), epochs=15, lr=5e-3), seed=0)
    return Case(net, images, torch.isin(images.ids, truth.ids))


@pytest.fixture(scope="module")
def poisoned(digits: Splits) -> Case:
    return make_case(digits, 0.05)


@pytest.fixture(scope="module")
def clean(digits: Splits) -> Case:
    return make_case(digits, 0.0)


def build(name: str, **settings: Any) -> Filter:
    return catalog.build("filter", {"name": name, **SETTINGS.get(name, {}), **settings})


def judge(filter: Filter, model: nn.Module, images: Images) -> Judged:  # noqa: A002
    """One judgement; with images and the global generator checked to be as they were."""
    assert isinstance(images.pixels, Tensor)
    pixels, labels, state = images.pixels.clone(), images.labels.clone(), torch.get_rng_state()
    found = run_filter(model, filter, images, generator=stream(0, "contract"))
    assert torch.equal(images.pixels, pixels), "the images were modified"
    assert torch.equal(images.labels, labels), "the labels were modified"
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    return found


def check_filter(filter: Filter, case: Case) -> None:  # noqa: A002
    """The contract on poisoned digits: better than chance over the whole set, and the same in any order."""
    found = judge(filter, case.model, case.images)
    assert found.score.shape == found.removed.shape == case.poisoned.shape
    assert roc_auc_score(case.poisoned, found.score) > 0.6, "no better than chance"
    order = torch.randperm(len(case.images), generator=stream(0, "order"))
    again = judge(filter, case.model, case.images.at(order))
    # Rounding in another order of batches may tip single images.
    assert torch.allclose(again.score, found.score[order], rtol=1e-3, atol=1e-3), "another order, other scores"
    assert (again.removed != found.removed[order]).double().mean() < 0.005


def test_the_room_is_not_empty() -> None:
    assert set(NAMES) >= set(MOST_ON_CLEAN)


@names
def test_filter(name: str, poisoned: Case) -> None:
    check_filter(build(name), poisoned)


@names
def test_unpoisoned_data_lose_no_more_than_the_rule_says(name: str, clean: Case) -> None:
    found = judge(build(name), clean.model, clean.images)
    assert found.removed.double().mean() <= MOST_ON_CLEAN.get(name, 0.2)


def small_case() -> Case:
    """60 colour images that are not square, of three classes of which one has three images, and a net in train mode."""
    pixels = torch.randint(256, (60, 3, 7, 6), dtype=torch.uint8, generator=stream(0, "pixels"))
    labels = torch.cat([torch.zeros(3), torch.ones(27), torch.full((30,), 3.0)]).long()
    images = Images(pixels=pixels, labels=labels, ids=torch.arange(60) * 7, classes=tuple("abcd"))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(80, 4))
    return Case(net.train(), images, torch.zeros(60, dtype=torch.bool))


def build_for_few(name: str, **settings: Any) -> Filter:
    return build(name, **({"k": 10} if name == "neighbours" else {}), **settings)


@names
def test_the_model_is_left_as_found(name: str) -> None:
    net, images, _ = small_case()
    net[1].eval()
    net[0].requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)

    def state() -> list[Any]:
        modes = [module.training for module in net.modules()]
        parameters = [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in net.parameters()]
        values = [value.tolist() for value in net.state_dict().values()]
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
        return [modes, parameters, values, hooks]

    before = state()
    judge(build_for_few(name), net, images)
    assert state() == before


@names
def test_same_stream_same_answer_on_colour_images_and_tiny_classes(name: str) -> None:
    net, images, _ = small_case()
    first, again = (judge(build_for_few(name), net, images) for _ in range(2))
    assert torch.equal(first.score, again.score)
    assert torch.equal(first.removed, again.removed)
    assert not first.removed.all()


@names
def test_images_of_one_colour_and_one_class_are_no_error(name: str) -> None:
    net, images, _ = small_case()
    pixels, labels = torch.zeros_like(images.pixels[torch.arange(60)]), torch.ones_like(images.labels)
    plain = Images(pixels=pixels, labels=labels, ids=images.ids, classes=images.classes)
    assert judge(build_for_few(name), net, plain).score.isfinite().all()


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
    net, images, _ = small_case()
    few = images.at(torch.arange(9))
    few = Images(pixels=few.pixels, labels=torch.arange(9) % 3, ids=few.ids, classes=few.classes)
    found = judge(build_for_few(name, **CANNOT_ACT[name]), net, few)
    assert not found.removed.any()
    assert found.notes


@names
def test_a_rule_that_can_act_says_nothing(name: str, poisoned: Case) -> None:
    assert judge(build(name), poisoned.model, poisoned.images).notes == ()


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(build(name), LayerFilter)])
def test_any_layer_can_be_looked_at_and_no_other(name: str) -> None:
    net, small, _ = small_case()
    # Three classes of twenty, so that every rule has classes to look at.
    images = Images(pixels=small.pixels, labels=torch.arange(60) % 3, ids=small.ids, classes=small.classes)
    settings = {"k": 10} if name == "neighbours" else {}
    default, maps = (judge(build(name, layer=layer, **settings), net, images) for layer in (None, "0"))
    assert not torch.equal(default.score, maps.score)
    with pytest.raises(RequestError, match=r"no layer 'group3\.1'"):
        judge(build(name, layer="group3.1", **settings), net, images)


# --- configuration ---------------------------------------------------------------------------------------------------


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    made = build(name)
    described = catalog.describe(made)
    assert described["name"] == name
    assert catalog.build("filter", described) == made
    assert eval(repr(made), {type(made).__name__: type(made)}) == made


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
def test_a_bad_filter_fails_the_contract(bad: type[Filter], complaint: str, poisoned: Case) -> None:
    everyone = torch.arange(len(poisoned.images))
    copies = poisoned._replace(images=poisoned.images.at(everyone))
    with pytest.raises(AssertionError, match=complaint):
        check_filter(bad(), copies)
