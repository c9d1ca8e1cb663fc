"""What every certified bound keeps, whichever file or package it comes from: `bascule.testing.certifiers`, on ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.certifiers.contract import Certifier
from bascule.core import catalog
from bascule.core.catalog import component
from bascule.testing import certifiers as contract
from bascule.testing.settings import check_settings

EPS = {"linf": 0.02, "l2": 0.1}
NAMES = catalog.names("certify")

names = pytest.mark.parametrize("name", NAMES)
norms = pytest.mark.parametrize("norm", list(EPS))


def build(name: str, norm: str, eps: float) -> Certifier:
    return catalog.build("certify", {"name": name, "norm": norm, "eps": eps})


def test_the_room_is_not_empty() -> None:
    assert {"interval", "crown-ibp", "smoothing"} <= set(NAMES)


@names
@norms
def test_certifier(name: str, norm: str) -> None:
    certifier = build(name, norm, EPS[norm])
    contract.check_truth(certifier)
    contract.check_held(certifier)


@names
@norms
def test_a_larger_radius_is_no_easier(name: str, norm: str) -> None:
    contract.check_larger(build(name, norm, EPS[norm]))


@names
def test_same_seed_same_radii(name: str) -> None:
    contract.check_repeats(build(name, "l2", EPS["l2"]))


@names
@norms
def test_shapes_and_types(name: str, norm: str) -> None:
    contract.check_shapes(build(name, norm, EPS[norm]))


# --- configuration ---------------------------------------------------------------------------------------------------


@names
@norms
def test_description_and_repr_rebuild_it(name: str, norm: str) -> None:
    certifier = build(name, norm, 0.123)
    check_settings(certifier)
    assert catalog.describe(certifier)["name"] == name
    assert certifier != build(name, norm, 0.124)


@names
def test_impossible_eps_is_refused(name: str) -> None:
    contract.check_eps(build(name, "linf", 0.1))


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Nothing(Certifier):
    """Knows nothing."""

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.zeros(len(x))


@component
class Everything(Certifier):
    """Claims all it is asked for."""

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.full((len(x),), self.eps)


@component
class Confidence(Certifier):
    """Takes a large margin for a proof."""

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.eps * (model(x).softmax(1).amax(1) > 0.6).float()


@component
class OneForAll(Certifier):
    """Gives one radius for the whole batch."""

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.zeros(1)


@component
class InPlace(Certifier):
    """Works on the caller's images."""

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return model(x.add_(0.1)).amax(1) * 0


@pytest.mark.parametrize(
    ("certifier", "complaint"),
    [
        (Nothing, "certifies nothing"),
        (Everything, "claims more than is true"),
        (Confidence, "claims more than is true"),
        (OneForAll, "not one radius per image"),
        (InPlace, "images were modified"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
@norms
def test_a_bad_certifier_fails_the_contract(certifier: type[Certifier], complaint: str, norm: Any) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_certifier(certifier(norm=norm, eps=0.5))
