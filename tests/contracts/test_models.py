"""What every architecture keeps, whichever file or package it comes from: `bascule.testing.architectures`, on ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.models.contract import Architecture
from bascule.testing import architectures as contract
from bascule.testing.settings import check_settings

REQUIRED: dict[str, Any] = {"model": "resnet18"}
"""A value for every setting without a default, by its name."""

LIGHT: dict[str, dict[str, Any]] = {"ibp-large": {"width": 8, "hidden": 32}}
"""Settings under which a large network is quick to test."""

pytestmark = pytest.mark.usefixtures("fake_packages")
names = pytest.mark.parametrize("name", catalog.names("models"))
sizes = pytest.mark.parametrize("size", contract.SIZES, ids=lambda size: "x".join(map(str, size)))


def build(name: str) -> Architecture:
    fields = catalog.documentation("models", name).fields
    required = {field.name: REQUIRED[field.name] for field in fields if field.default is None}
    return catalog.build("models", {"name": name, **required, **LIGHT.get(name, {})})


def test_the_room_is_not_empty() -> None:
    wanted = {"cifar-paper", "digits-cnn", "mnist-fast", "mnist-paper", "resnet18", "resnet50", "timm", "torchvision"}
    assert wanted <= set(catalog.names("models"))


@names
@sizes
@pytest.mark.parametrize("classes", [2, 10])
def test_architecture(name: str, size: tuple[int, int, int], classes: int) -> None:
    if not contract.check_network(build(name), size, classes):
        pytest.skip("refuses the size")


@names
def test_some_size_is_taken(name: str) -> None:
    contract.check_taken(build(name))


@names
@pytest.mark.parametrize("size", contract.TINY, ids=lambda size: "x".join(map(str, size)))
def test_tiny_images_are_taken_or_refused(name: str, size: tuple[int, int, int]) -> None:
    contract.check_tiny(build(name), size)


@names
def test_an_image_alone_gets_the_same_answer(name: str) -> None:
    if not contract.check_alone(build(name)):
        pytest.skip("refuses the size")


@names
def test_it_can_be_kept_and_laid_out_anew(name: str) -> None:
    if not contract.check_layout(build(name)):
        pytest.skip("refuses the size")


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    check_settings(build(name))
    assert catalog.describe(build(name))["name"] == name


# --- the contract itself ---------------------------------------------------------------------------------------------


def flat(size: tuple[int, int, int], classes: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(size[0] * size[1] * size[2], classes)]


class Constant(nn.Module):
    """The same answer to every image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.rand(classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.answer + 0 * x.flatten(1).sum(1, keepdim=True)


@component
class Nothing(Architecture):
    """Does not look at the image."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        return Constant(classes)


@component
class Softmax(Architecture):
    """Gives probabilities."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        return nn.Sequential(*flat(size, classes), nn.Softmax(dim=1))


@component
class LogSoftmax(Architecture):
    """Gives log-probabilities."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        return nn.Sequential(*flat(size, classes), nn.LogSoftmax(dim=1))


@component
class OneTooMany(Architecture):
    """Has a class for "none of these"."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        return nn.Sequential(*flat(size, classes + 1))


@component
class OwnSeed(Architecture):
    """Always the same weights."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(*flat(size, classes))


@component
class Unused(Architecture):
    """Carries a layer that nothing passes."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        net = nn.Sequential(*flat(size, classes))
        net[1].register_parameter("spare", nn.Parameter(torch.zeros(3)))
        return net


@component
class Unseeded(Architecture):
    """Draws outside the stream it is given."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        return nn.Sequential(*flat(size, classes))

    def initialised(self, size: tuple[int, int, int], classes: int, *, seed: int) -> nn.Module:
        return self.build(size, classes)


@pytest.mark.parametrize(
    ("architecture", "complaint"),
    [
        (Nothing(), "the image does not matter"),
        (Softmax(), "not logits"),
        (LogSoftmax(), "log-probabilities"),
        (OneTooMany(), "have logits of"),
        (OwnSeed(), "every seed is the same"),
        (Unused(), "spare"),
        (Unseeded(), "the global generator was used"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Architecture) else None,
)
def test_a_bad_architecture_fails_the_contract(architecture: Architecture, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_network(architecture, (1, 8, 8), 10)
