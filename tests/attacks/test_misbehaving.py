"""Every attack on models that write into their images, have no gradient, or answer with probabilities."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

import networks
from bascule.attacks.checks import signs_of_model
from bascule.attacks.contract import Attack, Evasion
from bascule.attacks.run import run_attack
from bascule.core import catalog
from bascule.core.rng import borrowed_global_stream, stream
from no_ball import SETTINGS

NAMES = catalog.names("attack")
BUDGET = {"queries": 40, "steps": 4, "targets": 2, "rounds": 2}
SIZE = (1, 6, 6)


def attack(name: str) -> Evasion:
    cls = catalog.load("attack", name)
    fields = {field.name for field in dataclasses.fields(cls)}
    budget = {key: value for key, value in BUDGET.items() if key in fields}
    where = {"norm": "l2" if name == "cw" else "linf", "eps": 0.3} if issubclass(cls, Attack) else SETTINGS[name]
    return catalog.build("attack", {"name": name, **budget, **where})


def subject(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    with borrowed_global_stream(0, "net"):
        model = getattr(networks, name)(SIZE, 4).eval()
    x = torch.rand(6, *SIZE, generator=stream(0, "images"))
    with torch.no_grad():
        return model, x, model(x.clone()).argmax(1)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_writes_into_its_images_is_attacked_as_one_that_does_not(name: str) -> None:
    found = []
    for kind in ("in_place", "plain"):
        model, x, y = subject(kind)
        before = x.clone()
        found.append(run_attack(model, attack(name), x, y, generator=stream(0, "attack")))
        assert torch.equal(x, before)
    assert torch.equal(found[0].x, found[1].x)
    assert torch.equal(found[0].prediction, found[1].prediction)


@pytest.mark.parametrize("kind", ["detached", "outside", "inference", "rounded"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "autoattack"])
def test_without_gradients_every_attack_runs(name: str, kind: str) -> None:
    model, x, y = subject(kind)
    found = run_attack(model, attack(name), x, y, generator=stream(0, "attack"))
    assert bool(found.x.isfinite().all())


@pytest.mark.parametrize("kind", ["detached", "outside", "inference"])
def test_without_gradients_autoattack_is_as_good_as_its_square(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = subject(kind)
    parts = tuple(attack(name) for name in ("apgd", "fab", "square"))
    monkeypatch.setattr(catalog.load("attack", "autoattack"), "_tries", lambda self: parts)
    whole = run_attack(model, attack("autoattack"), x, y, generator=stream(0, "attack"))
    assert bool((whole.prediction != y).any()), "square fools none"


@pytest.mark.parametrize(
    ("kind", "probabilities", "no_gradient"),
    [
        ("plain", 0.0, 0.0),
        ("in_place", 0.0, 0.0),
        ("log_softmax", 0.0, 0.0),
        ("sigmoid", 1.0, 0.0),
        ("detached", 0.0, 1.0),
        ("outside", 0.0, 1.0),
        ("inference", 0.0, 1.0),
    ],
)
def test_signs(kind: str, probabilities: float, no_gradient: float) -> None:
    signs = signs_of_model(subject(kind)[0], attack("pgd"), *subject(kind)[1:])
    assert signs["probabilities"] == probabilities
    assert signs["no_gradient"] == no_gradient
    assert signs["mixing"] == signs["random"] == 0
