"""A component that is called runs as the verb of its kind runs it; each kind in one place."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bascule
from bascule import RequestError
from bascule.core.catalog import component


@pytest.fixture
def some(trained, digits) -> tuple[nn.Module, Tensor, Tensor]:
    return copy.deepcopy(trained.model), digits.test.pixels[:60], digits.test.labels[:60]


def test_an_attack_attacks(some) -> None:
    attack = bascule.attacks.Pgd(eps=0.1, steps=2)
    assert torch.equal(attack(*some, seed=3), bascule.perturb(*some, attack, seed=3))
    mixed = attack(*some, attack_precision="mixed")
    assert torch.equal(mixed, bascule.perturb(*some, attack, attack_precision="mixed"))


def test_a_certifier_certifies(some) -> None:
    bound = bascule.certifiers.Smoothing(norm="l2", eps=0.1, n=20, n0=10)
    assert torch.equal(bound(*some, seed=3).radius, bascule.certify(*some, bound, seed=3).radius)


def test_a_filter_judges(some) -> None:
    judge = bascule.filters.Strip(overlays=4)
    assert torch.equal(judge(*some, seed=3).score, bascule.filter(*some, judge, seed=3).score)


def test_a_scanner_scans(some) -> None:
    scanner = bascule.scanners.MmBd(steps=3)
    assert torch.equal(scanner(*some, seed=3).anomaly, bascule.scan(*some, scanner, seed=3).anomaly)


def test_a_detector_is_prepared(some) -> None:
    detector = bascule.detectors.Strip(overlays=4)
    assert torch.equal(detector(*some, seed=3).calm, bascule.detect(*some, detector, seed=3).calm)


def test_a_repair_repairs(some) -> None:
    repair = bascule.repairs.FineTune(epochs=1)
    ours, theirs = repair(*some, seed=3).model, bascule.repair(*some, repair, seed=3).model
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_a_trigger_stamps(some) -> None:
    _, x, _ = some
    stamped = bascule.triggers.Sticker(size=2)(x)
    assert torch.equal(stamped[:, :, :6], x[:, :, :6].float() / 255)
    assert torch.equal(stamped, bascule.triggers.Sticker(size=2)(x.float().div(255).numpy()))
    moving = bascule.triggers.Sticker(size=2, position="random")
    assert torch.equal(moving(x, seed=3), moving(x, seed=3))
    assert not torch.equal(moving(x, seed=3), moving(x, seed=4))
    with pytest.raises(RequestError, match="x: images must lie in"):
        bascule.triggers.Sticker()(x.float())


@component
class Halve(bascule.attacks.Attack):
    """An attack of somebody's own."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return x * 2 - 5  # far outside


def test_a_component_of_ones_own_runs_with_the_guarantees(some) -> None:
    model, x, y = some
    found = Halve(eps=0.1)(model, x, y)
    assert float((found - x.float() / 255).abs().max()) <= 0.1 + 1e-6
    assert float(found.min()) >= 0


@pytest.mark.parametrize("change", [{"model": "net"}, {"x": torch.full((60, 1, 8, 8), 3.0)}, {"y": None}])
def test_wrong_arguments_are_refused_alike(some, change: dict[str, Any]) -> None:
    given = {**dict(zip(("model", "x", "y"), some, strict=True)), **change}
    with pytest.raises(RequestError) as caught:
        bascule.filters.Strip()(**given)
    assert caught.value.place == tuple(change)
