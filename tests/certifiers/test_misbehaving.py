"""Certificates of models that work in place or in other types: right, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import networks
from bascule.certifiers.run import Certified, run_certifier
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.rng import borrowed_global_stream, stream

SIZE = (1, 4, 4)
X = torch.rand(20, *SIZE, generator=stream(0, "images"))


def make(factory: Callable[..., nn.Module]) -> nn.Module:
    with borrowed_global_stream(0, "net"):
        return factory(SIZE, 3).eval()


def certify(model: nn.Module, name: str, x: Tensor = X) -> Certified:
    with torch.no_grad():
        y = make(networks.plain)(X.clone()).argmax(1)
    return run_certifier(model, catalog.build("certify", {"name": name, "eps": 0.005}), x, y, generator=stream(0, "c"))


@pytest.mark.parametrize("name", ["interval", "crown-ibp"])
def test_in_place_operators_on_the_images_are_followed(name: str) -> None:
    x = X.clone()
    found, expected = certify(make(networks.in_place_operators), name, x), certify(make(networks.plain), name)
    assert torch.equal(x, X)
    assert torch.equal(found.radius, expected.radius)
    assert bool(expected.certified.any())


def test_in_place_methods_are_refused_and_smoothing_is_right() -> None:
    x, model = X.clone(), make(networks.in_place)
    with pytest.raises(RequestError, match=r"cannot follow the method .sub_"):
        certify(model, "interval", x)
    assert torch.equal(certify(model, "smoothing", x).radius, certify(make(networks.plain), "smoothing").radius)
    assert torch.equal(x, X)


class Again(nn.Module):
    """Works in place on a value of which it uses another name later: a tiny share of it, too little to be measured."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.linear, self.relu = way, nn.Linear(16, 3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        before = self.linear(x.flatten(1))
        match self.way:
            case "layer":
                after = self.relu(before)
            case "function":
                after = nn.functional.relu(before, inplace=True)
            case "operator":
                after = before
                after += 1
            case "view":
                after = self.relu(before.reshape(-1, 3, 1)).flatten(1)
            case _:
                return self.relu(before) + 1e-6  # nobody asks for the old value
        return after + 1e-6 * before


@pytest.mark.parametrize("way", ["layer", "function", "operator", "view"])
def test_in_place_work_on_a_value_used_again_is_refused(way: str) -> None:
    with pytest.raises(RequestError, match="works in place on a value that is used again"):
        certify(make(lambda size, classes: Again(way)), "interval")


def test_in_place_work_that_nobody_looks_behind_is_followed() -> None:
    certify(make(lambda size, classes: Again("once")), "interval")


@pytest.mark.parametrize("own", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_refused(own: torch.dtype) -> None:
    with pytest.raises(RequestError, match="need a model in 32 or 64 bits"):
        certify(make(networks.plain).to(own), "interval")


@pytest.mark.parametrize("name", ["interval", "crown-ibp", "smoothing"])
def test_sixty_four_bits_give_the_same(name: str) -> None:
    found = certify(make(networks.plain).double(), name)
    assert found.radius.dtype == X.dtype
    assert torch.equal(found.certified, certify(make(networks.plain), name).certified)


def test_nan_is_refused() -> None:
    model = networks.Around(SIZE, 3, lambda x: x, lambda net, logits: logits * torch.nan)
    with pytest.raises(RequestError, match="with NaN"):
        certify(model, "smoothing")
