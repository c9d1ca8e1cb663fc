"""The gradient at the worst nearby weights, against the definition written out."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.ft_sam import AtWorstWeights, FtSam, Smoothed
from bascule.training.contract import CrossEntropy
from bascule.training.pgd import Pgd
from bascule.training.standard import Standard
from bascule.training.trades import Trades


def test_loss_and_gradient(plain: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels
    weights = dict(plain.named_parameters())
    uphill = torch.autograd.grad(F.cross_entropy(plain(x), y), list(weights.values()))
    length = torch.cat([(w * g).flatten() for w, g in zip(weights.values(), uphill, strict=True)]).norm()
    change = {name: 0.7 * w**2 * g / length for (name, w), g in zip(weights.items(), uphill, strict=True)}
    relative = torch.cat([(change[name] / w).flatten() for name, w in weights.items()]).norm()
    assert relative.item() == pytest.approx(0.7, rel=1e-4)
    moved = {name: (w + change[name]).detach().requires_grad_() for name, w in weights.items()}
    wanted_loss = F.cross_entropy(torch.func.functional_call(plain, moved, (x,)), y)
    wanted = torch.autograd.grad(wanted_loss, list(moved.values()))

    before = {name: w.detach().clone() for name, w in weights.items()}
    loss = AtWorstWeights(inner=Standard(), rho=0.7).loss(plain, x, y, progress=0.0, generator=stream(0, "r"))
    assert all(torch.equal(w, before[name]) for name, w in weights.items())
    loss.backward()
    assert loss.item() == pytest.approx(wanted_loss.item())
    for w, g in zip(weights.values(), wanted, strict=True):
        torch.testing.assert_close(w.grad, g)


def test_running_statistics_see_each_batch_once(residual: nn.Module, some: Images) -> None:
    residual.train()
    x, y = some.batch(some.ids), some.labels
    AtWorstWeights(inner=Standard(), rho=0.7).loss(residual, x, y, progress=0.0, generator=stream(0, "r"))
    assert residual.get_submodule("norm1").num_batches_tracked == 1
    assert residual.training


def test_weights_are_put_back_after_an_error(plain: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels
    before = {name: w.detach().clone() for name, w in plain.named_parameters()}
    calls = []
    real = plain.forward

    def fails_the_second_time(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return real(x)

    plain.forward = fails_the_second_time  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        AtWorstWeights(inner=Standard(), rho=0.7).loss(plain, x, y, progress=0.0, generator=stream(0, "r"))
    assert all(torch.equal(w, before[name]) for name, w in plain.named_parameters())


def test_any_objective_can_be_inside(plain: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels
    losses = [
        AtWorstWeights(inner=inner, rho=0.7).loss(plain, x, y, progress=0.0, generator=stream(0, "r")).item()
        for inner in (Standard(), Pgd(eps=0.1))
    ]
    assert losses[0] < losses[1]


@pytest.mark.parametrize("inner", [Standard(), Pgd(eps=0.1)], ids=["standard", "pgd"])
def test_smoothed_labels(inner: CrossEntropy, plain: nn.Module, some: Images) -> None:
    """Nine tenths on the label, a twentieth on each of the other two classes."""
    x, y = some.batch(some.ids), some.labels
    seen = inner.inputs(plain, x, y, progress=0.0, generator=stream(0, "r"))
    labels = torch.full((len(x), 3), 0.05).scatter(1, y.unsqueeze(1), 0.9)
    wanted = -(labels * plain(seen).log_softmax(1)).sum(1).mean()
    found = Smoothed(inner=inner, share=0.1).loss(plain, x, y, progress=0.0, generator=stream(0, "r"))
    torch.testing.assert_close(found, wanted)


def test_certain_labels_raise_confidence_and_smoothed_ones_lower_it(sharp: nn.Module, some: Images) -> None:
    """On images that the network gets right."""
    x = some.batch(some.ids)
    own = Images(pixels=some.pixels, labels=sharp(x).argmax(1), ids=some.ids, classes=some.classes)

    def confidence(share: float, epochs: int) -> float:
        repair = FtSam(rho=1e-3, epochs=epochs, label_smoothing=share)
        model = repair.repair(copy.deepcopy(sharp), own, generator=stream(0, "r")).model
        return model(x).softmax(1).amax(1).mean().item()

    assert confidence(0.5, 30) < confidence(0.5, 0) < confidence(0.0, 30)


def test_smoothing_needs_a_cross_entropy() -> None:
    with pytest.raises(RequestError, match=r"trades is not one\. Use label_smoothing 0"):
        FtSam(objective=Trades(eps=0.1))
    assert FtSam(objective=Trades(eps=0.1), label_smoothing=0.0).rho == 2
