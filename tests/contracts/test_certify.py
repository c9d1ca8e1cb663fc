"""What every certified bound keeps, whichever file or package it comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.run import run_attack
from bascule.certifiers.contract import Certifier
from bascule.certifiers.run import run_certifier
from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.rng import borrowed_global_stream, stream
from bascule.training.loop import train
from bascule.training.settings import Training

EPS = {"linf": 0.02, "l2": 0.1}
NAMES = catalog.names("certify")

names = pytest.mark.parametrize("name", NAMES)
norms = pytest.mark.parametrize("norm", list(EPS))


class Trained(NamedTuple):
    """A net hardened by interval bounds, and test images."""

    model: nn.Module
    x: Tensor
    y: Tensor


@pytest.fixture(scope="session")
def trained() -> Trained:
    train_set, test_set = catalog.build("data", "digits").load([])
    model = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32}).initialised((1, 8, 8), 10, seed=0)
    objective = catalog.build("train", {"name": "ibp", "eps": 0.05})
    train(model, train_set, Training(objective=objective, epochs=5, batch_size=32, lr=5e-3), seed=0)
    index = torch.arange(100)
    return Trained(model.eval(), test_set.batch(index), test_set.labels[index])


def build(name: str, norm: str, eps: float) -> Certifier:
    return catalog.build("certify", {"name": name, "norm": norm, "eps": eps})


def claim(certifier: Certifier, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """The radii as the certifier returns them; with everything checked to be as it was."""
    before = x.clone(), y.clone(), {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        found = certifier.radius(model, x, y, generator=stream(seed, "contract"))
    assert torch.equal(x, before[0]), "the images were modified"
    assert torch.equal(y, before[1]), "the labels were modified"
    assert all(torch.equal(value, before[2][name]) for name, value in model.state_dict().items())
    assert found.shape == y.shape, "not one radius per image"
    assert found.dtype == x.dtype
    assert found.device == x.device
    assert found.isfinite().all()
    assert found.min() >= 0
    return found


def linear_net(weights: Tensor) -> nn.Module:
    """Two classes, logits 0 and `weights . (x - 0.5)`."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weights.numel(), 2)).requires_grad_(False).eval()
    net[1].weight.copy_(torch.stack([torch.zeros_like(weights), weights]))
    net[1].bias.copy_(torch.tensor([0.0, -0.5 * float(weights.sum())]))
    return net


def true_distance(weights: Tensor, x: Tensor, norm: str) -> Tensor:
    """Distance of each image from the plane between the classes, worked out: |w . (x - 0.5)| over the dual norm."""
    dual = weights.abs().sum() if norm == "linf" else weights.norm()
    return ((x.flatten(1) - 0.5) @ weights).abs() / dual


def check_certifier(certifier: Certifier, trained: Trained) -> None:
    """The contract: certifies something, and nothing that is not so."""
    # Where the truth is known. The classifier smoothed by noise has the same plane.
    with borrowed_global_stream(0, "linear"):
        weights = torch.randn(12)
        x = 0.5 + 0.2 * (torch.rand(200, 3, 2, 2) - 0.5)
    net = linear_net(weights)
    y = net(x).argmax(1)
    found, truth = claim(certifier, net, x, y), true_distance(weights, x, certifier.norm)
    assert (found <= truth + 1e-6).all(), "claims more than is true"
    assert found.any(), "certifies nothing"
    # Where it is not: no attack may succeed within the radius.
    model, x, y = trained
    found = run_certifier(model, certifier, x, y, generator=stream(0, "contract"))
    with torch.no_grad():
        right = model(x).argmax(1) == y
    assert not (found.certified & ~right).any()
    assert found.certified.any(), "certifies nothing"
    assert torch.equal(found.certified, right & (found.radius >= certifier.eps))
    if certifier.of_model:
        for eps in found.radius[found.certified].unique().tolist():
            held = found.certified & (found.radius >= eps)
            attack = catalog.build("attack", {"name": "pgd", "norm": certifier.norm, "eps": eps, "steps": 20})
            now = run_attack(model, attack, x[held], y[held], generator=stream(0, "attack"))
            assert torch.equal(now.prediction, y[held]), "an attack moves a certified image"


def test_the_room_is_not_empty() -> None:
    assert {"interval", "crown-ibp", "smoothing"} <= set(NAMES)


@names
@norms
def test_certifier(name: str, norm: str, trained: Trained) -> None:
    check_certifier(build(name, norm, EPS[norm]), trained)


@names
@norms
def test_a_larger_radius_is_no_easier(name: str, norm: str, trained: Trained) -> None:
    counts = []
    for eps in (EPS[norm] / 10, EPS[norm], 20 * EPS[norm]):
        found = run_certifier(
            trained.model, build(name, norm, eps), trained.x, trained.y, generator=stream(0, "contract")
        )
        counts.append(int(found.certified.sum()))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


@names
def test_same_seed_same_radii(name: str, trained: Trained) -> None:
    certifier = build(name, "l2", EPS["l2"])
    before = torch.get_rng_state()
    first, again = (claim(certifier, *trained) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


@names
@norms
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_and_types(name: str, norm: str, channels: int, count: int, dtype: torch.dtype) -> None:
    model = catalog.build("models", {"name": "digits-cnn", "width": 2, "hidden": 4})
    net = model.initialised((channels, 6, 5), 3, seed=0).to(dtype).eval()
    x = torch.rand(count, channels, 6, 5, dtype=dtype, generator=stream(0, "images"))
    with torch.no_grad():
        y = net(x).argmax(1)
    found = claim(build(name, norm, 1e-6), net, x, y)
    assert found.any()


# --- configuration ---------------------------------------------------------------------------------------------------


@names
@norms
def test_description_and_repr_rebuild_it(name: str, norm: str) -> None:
    certifier = build(name, norm, 0.123)
    described = catalog.describe(certifier)
    assert described["name"] == name
    assert catalog.build("certify", described) == certifier
    assert eval(repr(certifier), {type(certifier).__name__: type(certifier)}) == certifier
    assert certifier != build(name, norm, 0.124)


@names
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_impossible_eps_is_refused(name: str, eps: Any) -> None:
    with pytest.raises(RequestError, match=r"^eps: ") as caught:
        catalog.build("certify", {"name": name, "eps": eps})
    assert repr(eps) in str(caught.value)


@names
def test_eps_is_required(name: str) -> None:
    with pytest.raises(RequestError, match="'eps' is missing"):
        catalog.build("certify", name)


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
def test_a_bad_certifier_fails_the_contract(
    certifier: type[Certifier], complaint: str, norm: Any, trained: Trained
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_certifier(certifier(norm=norm, eps=0.5), trained)
