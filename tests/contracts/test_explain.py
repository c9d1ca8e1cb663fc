"""What every explanation keeps, whichever file or package it comes from: `bascule.testing.explanations`, on ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.explanations.contract import HeatMap, Projection, Spectrum
from bascule.testing import explanations as contract
from bascule.testing.settings import check_settings

NAMES = catalog.names("explain")
HEAT_MAPS = [name for name in NAMES if isinstance(catalog.build("explain", name), HeatMap)]
SPECTRA = [name for name in NAMES if isinstance(catalog.build("explain", name), Spectrum)]
PROJECTIONS = [name for name in NAMES if isinstance(catalog.build("explain", name), Projection)]

heat_maps = pytest.mark.parametrize("name", HEAT_MAPS)
spectra = pytest.mark.parametrize("name", SPECTRA)


def test_every_component_is_of_one_kind() -> None:
    assert {"saliency", "smoothgrad", "integrated-gradients", "grad-cam"} <= set(HEAT_MAPS)
    assert {"fourier", "pass-filter", "band-energy"} <= set(SPECTRA)
    assert {"latents"} <= set(PROJECTIONS)
    assert sorted(HEAT_MAPS + SPECTRA + PROJECTIONS) == sorted(NAMES)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_projection_keeps_two_groups_apart(name: str) -> None:
    contract.check_projection(catalog.build("explain", name))


@heat_maps
def test_heat_map(name: str) -> None:
    contract.check_heat_map(catalog.build("explain", name))


@component
class Constant(HeatMap):
    """Says nothing."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.ones_like(x[:, 0])


@component
class Picture(HeatMap):
    """Shows the image itself."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return x.amax(1)


@component
class InPlace(HeatMap):
    """Works on the caller's images."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return x.mul_(2).amax(1)


@pytest.mark.parametrize(
    ("heat_map", "complaint"),
    [
        (Constant, "not where the model looks"),
        (Picture, "not where the model looks"),
        (InPlace, "images were modified"),
    ],
    ids=["constant", "picture", "in-place"],
)
def test_a_bad_heat_map_fails_the_contract(heat_map: type[HeatMap], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_explanation(heat_map())


@spectra
def test_spectrum(name: str) -> None:
    contract.check_spectrum(catalog.build("explain", name))


@component
class Flat(Spectrum):
    """Says nothing."""

    def frequencies(self, height: int, width: int) -> Tensor:
        return torch.tensor([[0.25], [0.5]], dtype=torch.float64)

    def response(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.full((len(x), 2), 0.5)


def test_a_flat_spectrum_fails_the_contract() -> None:
    with pytest.raises(AssertionError, match="nothing depends on frequency"):
        contract.check_explanation(Flat())


# --- both ------------------------------------------------------------------------------------------------------------

every = pytest.mark.parametrize("name", HEAT_MAPS + SPECTRA)


def build(name: str) -> Any:
    return catalog.build("explain", name)


@every
def test_same_seed_same_answer(name: str) -> None:
    contract.check_repeats(build(name))


@every
def test_shapes_and_types(name: str) -> None:
    contract.check_shapes(build(name))


@every
@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
def test_everything_is_left_as_found(name: str, fails: bool) -> None:
    contract.check_left(build(name), fails=fails)


@every
def test_the_callers_gradient_mode_does_not_matter(name: str) -> None:
    contract.check_gradient_mode(build(name))


@pytest.mark.parametrize("name", NAMES)
def test_description_and_repr_rebuild_it(name: str) -> None:
    check_settings(build(name))
    assert catalog.describe(build(name))["name"] == name
