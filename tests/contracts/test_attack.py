"""What every evasion attack keeps, whichever file or package it comes from: `bascule.testing.attacks`, on ours."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.contract import Attack, Evasion
from bascule.attacks.run import run_attack
from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.motion import Motions
from bascule.core.rng import stream
from bascule.testing import attacks as contract
from bascule.testing.cases import Trained
from bascule.testing.settings import check_settings
from no_ball import SETTINGS, SMALLER

EPS = {"linf": 0.15, "l2": 1.2, "l1": 5.0}
BUDGET = {"queries": 100, "steps": 10, "targets": 3, "lr": 0.3, "version": "light"}
"""Little search, with long steps where steps are few; what is checked here must hold at any budget."""
NAMES = catalog.names("attack")
IN_BALLS = [name for name in NAMES if issubclass(catalog.load("attack", name), Attack)]
"""Those whose threat model is a ball."""


def norms_of(name: str) -> tuple[str, ...]:
    """The norms an attack works in."""
    return contract.norms_of(catalog.load("attack", name))


names = pytest.mark.parametrize("name", NAMES)
norms = pytest.mark.parametrize("norm", list(EPS))
BALLS = [(name, norm) for name in IN_BALLS for norm in norms_of(name)]
in_balls = pytest.mark.parametrize(("name", "norm"), BALLS)
each = pytest.mark.parametrize(
    ("name", "norm"), BALLS + [(name, None) for name in NAMES if name not in IN_BALLS], ids=str
)


def build(name: str, norm: str | None = None, eps: float | None = None) -> Any:
    """In a ball; by default the attack's first norm, and a usual radius. Without a ball, with settings of its own."""
    if name not in IN_BALLS:
        return catalog.build("attack", {"name": name, **SETTINGS[name]})
    norm = norm or norms_of(name)[0]
    eps = EPS[norm] if eps is None else eps
    fields = {field.name for field in dataclasses.fields(catalog.load("attack", name))}
    budget = {key: value for key, value in BUDGET.items() if key in fields}
    return catalog.build("attack", {"name": name, "norm": norm, "eps": eps, **budget})


def test_the_room_is_not_empty() -> None:
    assert {"fgsm", "pgd"} <= set(NAMES)
    assert set(EPS) == set(contract.NORMS)


@each
def test_attack(name: str, norm: str | None) -> None:
    contract.check_effect(build(name, norm))


@in_balls
def test_eps_zero_changes_nothing(name: str, norm: str) -> None:
    contract.check_eps_zero(build(name, norm))


@each
def test_more_freedom_is_no_safer(name: str, norm: str | None) -> None:
    contract.check_freedom(build(name, norm), {"eps": EPS[norm] / 4} if norm else SMALLER[name])


@each
def test_same_seed_same_images(name: str, norm: str | None) -> None:
    contract.check_repeats(build(name, norm))


@each
def test_shapes_and_types(name: str, norm: str | None) -> None:
    contract.check_shapes(build(name, norm))


@names
def test_the_model_is_left_as_found(name: str) -> None:
    contract.check_model(build(name))


@each
def test_one_try_is_in_the_threat_model(name: str, norm: str | None) -> None:
    contract.check_one_try(build(name, norm))


@names
def test_people_are_told_what_it_may_do(name: str) -> None:
    contract.check_words(build(name))


# --- configuration ---------------------------------------------------------------------------------------------------


@each
def test_description_and_repr_rebuild_it(name: str, norm: str | None) -> None:
    attack = build(name, norm, 0.123)
    check_settings(attack)
    assert catalog.describe(attack)["name"] == name
    if norm is not None:
        assert attack != build(name, norm, 0.124)


@pytest.mark.parametrize("name", IN_BALLS)
def test_impossible_eps_is_refused(name: str) -> None:
    contract.check_eps(build(name))


@pytest.mark.parametrize("name", IN_BALLS)
def test_another_norm_is_refused(name: str) -> None:
    contract.check_norms(build(name))


@names
def test_whether_it_differentiates_the_model_is_told_truly(name: str) -> None:
    contract.check_gradient(build(name))


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Identity(Attack):
    """Does nothing."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return x


@component
class Escape(Attack):
    """Leaves the ball."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return 1 - x


@component
class Elsewhere(Evasion):
    """Proposes more than is allowed, and what is no number."""

    @property
    def threat(self) -> Any:
        return Motions(degrees=10.0, pixels=1.0)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.tensor([[1e30, float("nan"), -float("inf")]]).expand(len(x), -1)


def test_a_motion_is_kept_to_its_limits(trained: Trained) -> None:
    model, x, y = trained
    found = run_attack(model, Elsewhere(), x, y, generator=stream(0, "contract")).x
    motion = torch.tensor([[10.0, 0.0, 0.0]]).expand(len(x), -1)
    assert torch.equal(found, Motions(degrees=90.0, pixels=9.0).realise(motion, x))


@component
class InPlace(Attack):
    """Works on the caller's images."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.ball.project(x.add_(0.1), x)


@pytest.mark.parametrize(
    ("attack", "complaint"),
    [(Identity, "lowers no accuracy"), (Escape, "distance"), (InPlace, "images were modified")],
    ids=["identity", "escape", "in-place"],
)
@norms
def test_a_bad_attack_fails_the_contract(attack: type[Attack], complaint: str, norm: Any) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_attack(attack(norm=norm, eps=EPS[norm]))
