"""What every architecture keeps, whichever file or package it comes from."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.models.contract import Architecture

REQUIRED: dict[str, Any] = {"model": "resnet18"}
"""A value for every setting without a default, by its name."""

LIGHT: dict[str, dict[str, Any]] = {"ibp-large": {"width": 8, "hidden": 32}}
"""Settings under which a large network is quick to test."""

SIZES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 20, 12), (3, 9, 15)]

pytestmark = pytest.mark.usefixtures("fake_packages")
names = pytest.mark.parametrize("name", catalog.names("models"))
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))


def build(name: str) -> Architecture:
    fields = catalog.documentation("models", name).fields
    required = {field.name: REQUIRED[field.name] for field in fields if field.default is None}
    return catalog.build("models", {"name": name, **required, **LIGHT.get(name, {})})


def net_of(architecture: Architecture, size: tuple[int, int, int], classes: int, *, seed: int = 0) -> nn.Module:
    """A network, unless the architecture refuses the size, which skips the test."""
    try:
        return architecture.initialised(size, classes, seed=seed)
    except RequestError as error:
        pytest.skip(str(error))


def noise(size: tuple[int, int, int], count: int = 5) -> Tensor:
    return torch.rand(count, *size, generator=stream(0, "images"))


def check_architecture(architecture: Architecture, size: tuple[int, int, int], classes: int) -> None:
    """Logits of the right shape that hang on every parameter and on the image, drawn from the seed alone."""
    before = torch.get_rng_state()
    net = net_of(architecture, size, classes)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    fresh = {key: value.clone() for key, value in net.state_dict().items()}  # the pass moves running statistics
    x = noise(size).requires_grad_(True)
    logits = net(x)
    assert logits.shape == (5, classes)
    assert logits.isfinite().all()
    assert not torch.allclose(logits.sum(1), torch.ones(5), atol=1e-3), "these sum to one: not logits"
    assert not torch.allclose(logits.exp().sum(1), torch.ones(5), atol=1e-3), "these are log-probabilities"
    logits.square().sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).any(1).all(), "the image does not matter"
    # A parameter may rest for these few images, like a dead ReLU's bias, but no whole tensor may.
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    torch.rand(3)  # other draws in between must not matter
    again, other = (net_of(architecture, size, classes, seed=seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(value, again[key]) for key, value in fresh.items()), "the seed does not decide"
    assert not all(torch.equal(value, other[key]) for key, value in fresh.items()), "every seed is the same"


def test_the_room_is_not_empty() -> None:
    wanted = {"cifar-paper", "digits-cnn", "mnist-fast", "mnist-paper", "resnet18", "resnet50", "timm", "torchvision"}
    assert wanted <= set(catalog.names("models"))


@names
@sizes
@pytest.mark.parametrize("classes", [2, 10])
def test_architecture(name: str, size: tuple[int, int, int], classes: int) -> None:
    check_architecture(build(name), size, classes)


@names
def test_some_size_is_taken(name: str) -> None:
    """No architecture may get through by refusing everything."""
    taken = []
    for size in SIZES:
        try:
            taken.append(build(name).build(size, 10))
        except RequestError:
            continue
    assert taken


@names
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 2, 2), (1, 1, 28)], ids=lambda size: "x".join(map(str, size)))
def test_tiny_images_are_taken_or_refused(name: str, size: tuple[int, int, int]) -> None:
    try:
        net = build(name).build(size, 3)
    except RequestError:
        return
    assert net.eval()(noise(size)).shape == (5, 3)


@names
def test_an_image_alone_gets_the_same_answer(name: str) -> None:
    net = net_of(build(name), (1, 28, 28), 10).eval()
    x = noise((1, 28, 28))
    alone = torch.cat([net(image) for image in x.split(1)])
    assert torch.allclose(alone, net(x), atol=1e-5)


@names
def test_it_can_be_kept_and_laid_out_anew(name: str) -> None:
    net, copy = (net_of(build(name), (3, 32, 32), 10, seed=seed).eval() for seed in (0, 1))
    copy.load_state_dict(net.state_dict())
    copy = copy.to(memory_format=torch.channels_last)
    x = noise((3, 32, 32))
    assert torch.allclose(copy(x.contiguous(memory_format=torch.channels_last)), net(x), atol=1e-5)


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    architecture = build(name)
    assert catalog.build("models", catalog.describe(architecture)) == architecture
    assert eval(repr(architecture), vars(sys.modules[type(architecture).__module__])) == architecture


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
        (OneTooMany(), "Size"),
        (OwnSeed(), "every seed is the same"),
        (Unused(), "spare"),
        (Unseeded(), "the global generator was used"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Architecture) else None,
)
def test_a_bad_architecture_fails_the_contract(architecture: Architecture, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_architecture(architecture, (1, 8, 8), 10)
