"""What every repair keeps, whichever file or package it comes from: `bascule.testing.repairs`, on ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.repairs.contract import Repair, Repaired
from bascule.testing import repairs as contract
from bascule.testing.settings import check_settings

IDLE: dict[str, dict[str, Any]] = {
    "anp": {"steps": 0},
    "bnp": {"u": 1e6},
    "clp": {"u": 1e6},
    "fine-pruning": {"max_share": 0.0, "epochs": 0},
    "fine-tune": {"epochs": 0},
    "ft-sam": {"epochs": 0},
    "i-bau": {"rounds": 0},
    "nad": {"epochs": 0},
    "pbe": {"epochs": 0},
    "pud": {"epochs": 0},
    "rnp": {"recover_epochs": 0},
    "sau": {"epochs": 0},
    "unlearn": {"epochs": 0},
}
"""For each repair, settings by which it does nothing."""

QUICK: dict[str, dict[str, Any]] = {
    "anp": {"steps": 5, "threshold": 0.9, "lr": 1e3},
    "bnp": {"u": 0.0},
    "clp": {"u": 1.0},
    "rnp": {"unlearn_lr": 0.1, "recover_epochs": 8, "recover_lr": 50.0, "max_drop": 1.0},
    "i-bau": {"rounds": 1, "steps": 3, "search_steps": 3},
    "nad": {"epochs": 1, "teacher_epochs": 1},
    "unlearn": {"epochs": 1, "scanner": {"name": "neural-cleanse", "target": 0, "max_looks": 2}},
    **{name: {"epochs": 1} for name in ("fine-pruning", "fine-tune", "ft-sam", "pbe", "pud", "sau")},
}
"""For each repair, settings by which it does something at once."""

MENDS: dict[str, tuple[dict[str, Any], float]] = {
    "bnp": ({"u": 1.0}, 0.75),
    "pbe": ({"eps": 0.1, "lr": 0.03}, 0.6),
    "pud": ({"eps": 0.1}, 0.85),
    "unlearn": ({}, 0.2),
    "sau": ({"epochs": 20, "lr": 3e-3, "schedule": "cosine", "eps": 0.3, "step_size": 0.3}, 0.7),
}
"""Repairs that remove the backdoor of the small net below, the settings they need, and a bound on what is left of it.

The others do not on this net; what each of them does do is in a test of its own.
"""

NORMED = {"bnp"}
"""Repairs that work on batch norm alone, and refuse a network without."""
DRAWS_NOTHING = {"bnp"}
"""Repairs of the defender's images in which there is nothing random."""

NAMES = catalog.names("repair")
names = pytest.mark.parametrize("name", NAMES)


def build(name: str, settings: dict[str, dict[str, Any]]) -> Repair:
    return catalog.build("repair", {"name": name, **settings[name]})


FINDS = ("bnp", "clp", "unlearn")
"""Repairs that see that there is nothing to repair in a network without a backdoor."""


def test_the_room_is_not_empty() -> None:
    assert set(NAMES) >= set(IDLE)


@names
def test_zero_steps_give_the_same_weights(name: str) -> None:
    contract.check_idle(build(name, IDLE), norm=name in NORMED)


@names
def test_same_generator_same_weights(name: str) -> None:
    contract.check_repeats(build(name, QUICK), norm=name in NORMED, draws=name not in DRAWS_NOTHING)


@names
def test_kinds_of_networks(name: str) -> None:
    contract.check_networks(build(name, QUICK), needs_norm=name in NORMED)


@names
@pytest.mark.parametrize("net", ["mnist-fast", "mnist-paper", "resnet18", "cifar-paper"])
def test_the_networks_of_the_studies(name: str, net: str) -> None:
    contract.check_network(build(name, QUICK), net, needs_norm=name in NORMED)


@names
def test_two_images_are_enough(name: str) -> None:
    contract.check_two(build(name, QUICK))


@names
def test_defaults_change_weights_and_keep_the_accuracy(name: str) -> None:
    """On a network without a backdoor a repair costs little."""
    contract.check_accuracy(catalog.build("repair", name), norm=name in NORMED, changes=name not in FINDS)


@pytest.mark.parametrize("name", list(MENDS))
def test_the_backdoor_is_removed(name: str) -> None:
    settings, bound = MENDS[name]
    contract.check_mends(catalog.build("repair", {"name": name, **settings}), bound, norm=name in NORMED)


# --- configuration ---------------------------------------------------------------------------------------------------


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    repair = build(name, QUICK)
    check_settings(repair)
    assert catalog.describe(repair)["name"] == name
    assert repair != build(name, IDLE)


@names
def test_every_setting_is_described(name: str) -> None:
    for field in catalog.documentation("repair", name).fields:
        assert field.text, field.name
        assert field.default is not None, f"{field.name} has no default"


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Nothing(Repair):
    """Does nothing."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        return Repaired(model, {})


@component
class LeavesHooks(Repair):
    """Forgets to take its hook away."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        next(model.parameters()).data.mul_(0.9)
        next(model.children()).register_forward_hook(lambda *_: None)
        return Repaired(model, {})


@component
class OwnChance(Repair):
    """Draws from elsewhere than its generator."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        next(model.parameters()).data.mul_(torch.rand(()))
        return Repaired(model, {})


@component
class Cuts(Repair):
    """Takes channels out instead of setting them to zero."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        layer = next(module for module in model.modules() if isinstance(module, nn.Linear))
        layer.weight = nn.Parameter(layer.weight[:, 1:].detach())
        return Repaired(model, {})


@component
class Explodes(Repair):
    """Leaves a NaN behind."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        next(model.parameters()).data.fill_(torch.nan)
        return Repaired(model, {})


@pytest.mark.parametrize(
    ("repair", "complaint"),
    [
        (Nothing(), "no weight was changed"),
        (LeavesHooks(), "hooks were left"),
        (OwnChance(), "the global generator was used"),
        (Cuts(), "changed the architecture"),
        (Explodes(), "not finite"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Repair) else None,
)
def test_a_bad_repair_fails_the_contract(repair: Repair, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_repair(repair)


def test_doing_nothing_removes_no_backdoor() -> None:
    with pytest.raises(AssertionError, match="works as before"):
        contract.check_mends(Nothing(), 0.5)
