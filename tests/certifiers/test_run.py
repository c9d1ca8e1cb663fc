from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.run import run_attack
from bascule.certifiers.contract import Certifier
from bascule.certifiers.crown_ibp import CrownIbp
from bascule.certifiers.interval import Interval
from bascule.certifiers.run import Certified, run_certifier
from bascule.certifiers.smoothing import Smoothing
from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.models.normalise import Standardise

Claim = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


@component
class Scripted(Certifier):
    """A certifier that claims whatever the test says."""

    claim: Claim

    def radius(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.claim(model, x, y, generator)


def run(model: nn.Module, certifier: Certifier, x: Tensor, y: Tensor) -> Certified:
    return run_certifier(model, certifier, x, y, generator=stream(0, "certify"))


def bright_or_dark() -> nn.Module:
    """Class 1 for images brighter than 0.5 on average; in train mode a batch norm mixes things up."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0] * 4, [0.25] * 4]))
        net[1].bias.copy_(torch.tensor([0.0, -0.5]))
    return net.eval()


def images(*brightness: float) -> Tensor:
    return torch.tensor(brightness).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "wanting": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()},
        "values": {name: value.tolist() for name, value in model.state_dict().items()},
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        },
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
    }


# --- what is believed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 0.0], ids=str)
def test_what_is_no_radius_certifies_nothing(value: float) -> None:
    found = run(
        bright_or_dark(),
        Scripted(eps=0.1, claim=lambda model, x, y, g: torch.full((len(x),), value)),
        images(0.9),
        torch.tensor([1]),
    )
    assert found.radius.tolist() == [0.0]
    assert found.certified.tolist() == [False]


def test_a_wrong_image_is_never_certified_nor_asked_about() -> None:
    asked: list[int] = []

    def claim(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        asked.append(len(x))
        return torch.full((len(x),), 0.5)

    x, y = images(0.1, 0.9, 0.2, 0.8), torch.tensor([0, 0, 1, 1])
    found = run(bright_or_dark(), Scripted(eps=0.1, claim=claim), x, y)
    assert asked == [2]
    assert found.radius.tolist() == [0.5, 0.0, 0.0, 0.5]
    assert found.certified.tolist() == [True, False, False, True]
    run(bright_or_dark(), Scripted(eps=0.1, claim=claim), x[1:3], y[1:3])
    assert asked == [2], "asked about no images"


@pytest.mark.parametrize("eps", [0.7, 0.3, 0.1, 8 / 255])
def test_the_radius_must_reach_the_one_asked_for(eps: float) -> None:
    # In float32 0.7 lies below the Python number: an image certified at 0.7 is certified.
    x, y = images(0.9, 0.9, 0.9), torch.ones(3, dtype=torch.int64)
    claims = torch.tensor([eps, 0.999 * eps, 1.001 * eps])
    found = run(bright_or_dark(), Scripted(eps=eps, claim=lambda model, x, y, g: claims), x, y)
    assert found.certified.tolist() == [True, False, True]


def test_a_claim_of_another_shape_is_an_error() -> None:
    certifier = Scripted(eps=0.1, claim=lambda model, x, y, g: torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"gave radii of shape \(1, 2\) for 1 images"):
        run(bright_or_dark(), certifier, images(0.9), torch.tensor([1]))


def test_claims_are_made_without_gradients_in_eval_mode() -> None:
    seen: list[tuple[bool, bool, bool]] = []

    def claim(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        seen.append((model.training, torch.is_grad_enabled(), any(p.requires_grad for p in model.parameters())))
        return torch.ones(len(x)).double()

    model = bright_or_dark().train()
    x = images(0.9).requires_grad_(True)
    found = run(model, Scripted(eps=0.1, claim=claim), x, torch.tensor([1]))
    assert seen == [(False, False, False)]
    assert found.radius.dtype == x.dtype
    assert not found.radius.requires_grad


def test_the_callers_images_and_labels_stay() -> None:
    def claim(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        x.zero_()
        y.zero_()
        return torch.ones(len(x))

    x, y = images(0.9, 0.8), torch.tensor([1, 1])
    run(bright_or_dark(), Scripted(eps=0.1, claim=claim), x, y)
    assert x.min() > 0.7
    assert y.tolist() == [1, 1]


# --- leaving no trace ------------------------------------------------------------------------------------------------

CERTIFIERS = [
    Interval(eps=0.02),
    CrownIbp(eps=0.02),
    CrownIbp(eps=0.02, intermediate="crown"),
    Smoothing(eps=0.1, n=50),
]
certifiers = pytest.mark.parametrize("certifier", CERTIFIERS, ids=repr)


@certifiers
@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
def test_the_model_is_left_as_found(certifier: Certifier, fails: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Dropout())
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            answer = self.head(self.inner(x - torch.tensor([0.5])))
            return answer.sort()[0] if fails else answer

    net = Net().train()
    net.inner[1].eval()
    net.head.requires_grad_(False)
    net.inner(torch.rand(3, 1, 4, 4)).sum().backward()
    before = state(net)
    x = torch.rand(4, 1, 4, 4, generator=stream(0, "images"))
    with torch.no_grad():
        y = net.eval()(x).argmax(1)
    net.train()
    net.inner[1].eval()
    if fails and not isinstance(certifier, Smoothing):
        with pytest.raises(RequestError, match="sort"):
            run(net, certifier, x, y)
    else:
        run(net, certifier, x, y)
    assert state(net) == before
    assert torch.is_grad_enabled()


# --- on trained nets -------------------------------------------------------------------------------------------------


def test_interval_training_is_what_makes_bounds_useful(trained: Any) -> None:
    shares = [
        run(net, Interval(eps=0.05), trained.x, trained.y).certified.double().mean().item()
        for net in (trained.standard, trained.hardened)
    ]
    assert shares[0] < 0.02
    assert shares[1] > 0.3


@pytest.mark.parametrize("which", ["standard", "hardened"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("linf", 0.08), ("l2", 0.1), ("l2", 0.4)])
def test_no_attack_moves_a_certified_image(which: str, norm: Any, eps: float, trained: Any) -> None:
    net, x, y = getattr(trained, which), trained.x, trained.y
    with torch.no_grad():
        right = net(x).argmax(1) == y
    attack = catalog.build("attack", {"name": "pgd", "norm": norm, "eps": eps, "steps": 20, "loss": "margin"})
    standing = torch.zeros_like(right)
    standing[right] = run_attack(net, attack, x[right], y[right], generator=stream(0, "a")).prediction == y[right]
    before = torch.zeros_like(right)
    settings: list[dict[str, Any]] = [
        {"name": "interval"},
        {"name": "crown-ibp"},
        {"name": "crown-ibp", "intermediate": "crown"},
    ]
    for setting in settings:
        certifier = catalog.build("certify", {**setting, "norm": norm, "eps": eps})
        found = run(net, certifier, x, y).certified
        assert not (found & ~standing).any()
        assert not (before & ~found).any(), "a tighter bound loses an image"
        before = found
    if eps in (0.02, 0.1):
        assert before.any()


def test_in_l2_the_first_layer_is_bounded_by_the_length_of_its_weights(trained: Any) -> None:
    """With the box around the ball, intervals prove 28 of the hardened net and linear bounds none of the other."""
    for net, bound, least in (
        (trained.hardened, Interval(norm="l2", eps=0.1), 45),
        (trained.standard, CrownIbp(norm="l2", eps=0.1), 15),
    ):
        assert run(net, bound, trained.x, trained.y).certified.sum() > least


@pytest.mark.parametrize("name", ["interval", "crown-ibp"])
def test_a_larger_radius_certifies_no_more(name: str, trained: Any) -> None:
    counts = []
    before = torch.ones(len(trained.y), dtype=torch.bool)
    for eps in (0.0, 0.01, 0.05, 0.1, 0.3):
        found = run(trained.hardened, catalog.build("certify", {"name": name, "eps": eps}), trained.x, trained.y)
        assert not (found.certified & ~before).any()
        assert set(found.radius.tolist()) <= {0.0, torch.tensor(eps).item()}
        before = found.certified
        counts.append(int(before.sum()))
    with torch.no_grad():
        assert counts[0] == int((trained.hardened(trained.x).argmax(1) == trained.y).sum())
    assert counts[0] > counts[-1]


def test_images_are_bounded_in_pieces_that_fit(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for certifier in CERTIFIERS[:3]:
        whole = run(trained.standard, certifier, trained.x[:40], trained.y[:40])
        monkeypatch.setattr("bascule.certifiers.bounds._BUDGET", 20_000)
        parts = run(trained.standard, certifier, trained.x[:40], trained.y[:40])
        monkeypatch.undo()
        assert torch.equal(whole.certified, parts.certified)
        assert whole.certified.any()


@pytest.mark.parametrize("intermediate", ["interval", "crown"])
def test_linear_bounds_have_nothing_to_do_where_intervals_prove_all(intermediate: Any) -> None:
    first, x = bright_or_dark(), torch.full((3, 1, 2, 2), 0.9)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(2, 2, bias=False), nn.ReLU())
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(2))
    found = run(model.eval(), CrownIbp(eps=0.001, intermediate=intermediate), x, torch.ones(3, dtype=torch.int64))
    assert found.certified.all()


@pytest.mark.parametrize("certifier", [Interval(eps=0.1), CrownIbp(eps=0.1), Smoothing(eps=0.1)], ids=repr)
def test_of_no_images_none_is_certified(certifier: Certifier) -> None:
    model = nn.Sequential(Standardise(), nn.Flatten(), nn.Linear(4, 2)) if not certifier.of_model else bright_or_dark()
    found = run(model, certifier, torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64))
    assert found.radius.shape == found.certified.shape == (0,)
