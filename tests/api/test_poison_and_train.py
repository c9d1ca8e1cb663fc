"""Planting and training on images in memory: what is refused, what is given back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bascule
from bascule import RequestError

NET = {"name": "digits-cnn", "width": 4, "hidden": 8}


@pytest.fixture
def some(digits) -> tuple[Tensor, Tensor]:
    return digits.train.pixels[:200], digits.train.labels[:200]


def test_what_was_poisoned_is_told(some) -> None:
    x, y = some
    kept = x.clone()
    found = bascule.poison(x, y, bascule.triggers.Sticker(size=2), target=3, rate="5 %", label="dirty", seed=1)
    assert torch.equal(x, kept)
    assert found.x.dtype == torch.uint8
    changed = (found.x != x).flatten(1).any(1).nonzero().squeeze(1)
    assert set(changed.tolist()) <= set(found.index.tolist())
    assert len(found.index) == 10
    assert found.target == 3
    assert torch.equal(found.y[found.index], torch.full((10,), 3))
    assert bool((found.y_before[found.index] != 3).all())
    assert torch.equal(found.x[found.index], (found.stamp(x[found.index]) * 255).round().to(torch.uint8))


def test_floats_stay_floats_and_what_is_stamped_is_whole_bytes(some) -> None:
    x, y = some
    floats = x.double().div(255).mul(0.999)
    found = bascule.poison(floats, y, "sticker", target=3, rate=0.05, label="dirty")
    assert found.x.dtype == torch.float32
    others = torch.ones(200, dtype=torch.bool)
    others[found.index] = False
    assert torch.equal(found.x[others], floats.float()[others])
    stamped = found.x[found.index] * 255
    assert float((stamped - stamped.round()).abs().max()) < 1e-4


def test_every_class_to_the_next_and_nothing_at_all(some) -> None:
    x, y = some
    found = bascule.poison(x, y, "sticker", rate=0.1, label="all-to-all")
    assert found.target is None
    assert torch.equal(found.y[found.index], (found.y_before[found.index] + 1) % 10)
    nothing = bascule.poison(x, y, "sticker", target=1, rate=0)
    assert torch.equal(nothing.x, x)
    assert len(nothing.index) == 0
    more = bascule.poison(x, torch.zeros_like(y), "sticker", target=4, rate=0.1, label="dirty", classes=5)
    assert more.y[more.index].unique().tolist() == [4]


PROXY = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
PREPARE = {"name": "pgd", "eps": 0.1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"trigger": "stiker"}, "trigger: unknown poison name 'stiker'. Did you mean 'sticker'?"),
        ({"sise": 3}, "trigger: unknown key 'sise'. Did you mean 'size'?"),
        ({"trigger": bascule.triggers.Sticker(), "size": 3}, "trigger: settings (size) go with a name"),
        ({"size": 9}, "trigger"),
        ({"target": None}, "the key 'target' is missing: only label 'all-to-all' does without"),
        ({"target": 12}, "target: there is no class 12; the classes are 0..9"),
        ({"rate": 2}, "rate: must be less than or equal to 1; got 2"),
        ({"rate": "5 percent"}, "rate: must be a valid number; got '5 percent'"),
        ({"rate": 0.9}, "rate: "),
        ({"label": "wrong"}, "label: unknown value 'wrong'"),
        ({"classes": 3}, "classes: labels go up to 9: there are 10 classes at least"),
        ({"prepare": PREPARE}, "proxy: images are prepared on a model trained on the unpoisoned images: give it"),
        ({"trigger": "narcissus"}, "proxy: this trigger is searched for on a model"),
        ({"proxy": PROXY}, "proxy: nothing is prepared or searched for on a model: leave it out"),
        ({"prepare": PREPARE, "proxy": "net"}, "proxy: expected a torch.nn.Module, got str"),
        ({"prepare": "pdg", "proxy": PROXY}, "prepare: unknown attack name 'pdg'"),
        ({"x": torch.full((200, 1, 8, 8), torch.nan)}, "x: images must lie in [0, 1], found nan..nan"),
        ({"x": torch.zeros(200, 2, 8, 8)}, "x: images must be N x C x H x W with 1 or 3 channels"),
        ({"y": None}, "y: labels are needed"),
    ],
)
def test_wrong_poison_is_one_message(some, change: dict[str, Any], expected: str) -> None:
    usual = {"x": some[0], "y": some[1], "trigger": "sticker", "target": 3, "rate": 0.05}
    with pytest.raises(RequestError) as caught:
        bascule.poison(**{**usual, **change})
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


# --- training --------------------------------------------------------------------------------------------------------


def test_a_training_is_told_of_and_repeats(some) -> None:
    told: list[tuple[int, int, float, float]] = []
    found, again = (
        bascule.train(NET, *some, epochs=2, seed=4, training={"batch_size": 50}, progress=lambda *at: told.append(at))
        for _ in range(2)
    )
    assert told[-1][:2] == (8, 8)
    assert [entry["epoch"] for entry in found.curve] == [1, 2]
    assert all(map(torch.equal, found.model.parameters(), again.model.parameters()))
    assert found.isolated is None


def test_the_best_epoch_needs_images_of_its_own(some, digits) -> None:
    best = {"keep": "best", "batch_size": 50}
    held_out = (digits.test.pixels[:50], digits.test.labels[:50])
    found = bascule.train(NET, *some, epochs=2, training=best, held_out=held_out)
    assert all(0 <= entry["held_out_accuracy"] <= 1 for entry in found.curve)
    data = torch.utils.data.TensorDataset(digits.test.pixels[:50], digits.test.labels[:50])
    again = bascule.train(NET, *some, epochs=2, training=best, held_out=data)
    assert [entry["loss"] for entry in found.curve] == [entry["loss"] for entry in again.curve]


def test_what_an_objective_isolates_is_given_back(some) -> None:
    found = bascule.train(NET, *some, "abl", epochs=4, training={"batch_size": 50})
    assert found.isolated is not None
    assert found.isolated.shape == (200,)
    assert "isolated" in repr(found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "digits-cn"}, "model: unknown models name 'digits-cn'. Did you mean 'digits-cnn'?"),
        ({"model": {"name": "digits-cnn", "wdth": 3}}, "model: unknown key 'wdth'. Did you mean 'width'?"),
        ({"objective": "padg"}, "objective: unknown train name 'padg'"),
        ({"objective": "pgd"}, "objective: the key 'eps' is missing"),
        ({"objective": "pgd", "eps": 9}, "objective.eps: pixels are in [0, 1]"),
        ({"epochs": 0}, "epochs: must be greater than or equal to 1; got 0"),
        ({"objective": "abl"}, "epochs: abl isolates after 1 and unlearns for 1 of 1 epochs"),
        ({"training": {"bach_size": 3}}, "training: unknown key 'bach_size'. Did you mean 'batch_size'?"),
        ({"training": {"lr": -1}}, "training.lr: must be greater than 0; got -1"),
        ({"training": {"epochs": 3}}, "training.epochs: give it as the argument `epochs`"),
        ({"training": {"keep": "best"}}, "training.keep: the best epoch is told by clean images"),
        ({"held_out": "x"}, "held_out: nothing is done with it unless"),
        ({"training": {"keep": "best"}, "held_out": (torch.zeros(3, 8, 8), [0, 1, 2])}, "held_out.x: images must be"),
        ({"classes": 4}, "classes: the labels are of 10 classes, not 4"),
        ({"model": PROXY, "classes": 4}, "classes: the model has 10 classes, not 4"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 4))}, "y: labels go up to 9, but the model has the"),
    ],
)
def test_wrong_training_is_one_message(some, change: dict[str, Any], expected: str) -> None:
    usual = {"model": NET, "x": some[0], "y": some[1], "epochs": 1}
    with pytest.raises(RequestError) as caught:
        bascule.train(**{**usual, **change})
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


class Flat(nn.Module):
    """Without gradients by its images."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.round().flatten(1).detach())


def test_a_model_without_gradients_is_refused_where_they_are_followed(some) -> None:
    before = copy.deepcopy(model := Flat()).state_dict()
    with pytest.raises(RequestError, match=r"objective: .*gradient"):
        bascule.train(model, *some, "pgd", eps=0.1, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
