"""Hypergradients against finite differences of the whole bilevel problem."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.i_bau import IBau


class Soft(nn.Module):
    """Smooth, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(4, 3).double(), nn.Linear(3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x.flatten(1)).tanh())


@pytest.fixture
def problem() -> tuple[nn.Module, Tensor, Tensor]:
    with rng.borrowed_global_stream(0, "net"):
        net = Soft().eval()
    x = 0.4 + 0.2 * torch.rand(8, 1, 2, 2, dtype=torch.float64, generator=stream(0, "x"))
    return net, x, torch.arange(8) % 3


def solution(repair: IBau, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The fixed point, by very many steps."""
    delta = torch.zeros_like(x[:1])
    for _ in range(3000):
        delta.requires_grad_(True)
        (slope,) = torch.autograd.grad(repair._inner(net, delta, x, y), delta)
        delta = repair._within(delta.detach() - 0.1 * slope)
    return delta


@pytest.mark.parametrize(("rms", "penalty"), [(5.0, 1.0), (0.025, 0.01)], ids=["inside", "on the sphere"])
def test_hypergradient(rms: float, penalty: float, problem: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = problem
    repair = IBau(rms=rms, penalty=penalty, iterations=300, share=0.5)
    weights = list(net.parameters())
    delta = solution(repair, net, x, y)
    length = 2 * rms  # of four values
    assert (float(delta.norm()) == pytest.approx(length)) == (rms < 1)
    found = repair._hypergradient(net, weights, delta, x, y)
    direct = IBau(rms=rms, penalty=penalty, iterations=0, share=0.5)._hypergradient(net, weights, delta, x, y)

    def outer() -> float:
        seen = torch.cat([x[:4] + solution(repair, net, x, y), x[4:]])
        return F.cross_entropy(net(seen), y).item()

    gaps = []
    for weight, gradient, plain in zip(weights, found, direct, strict=True):
        place = int(gradient.abs().argmax())
        flat = weight.data.view(-1)
        value, h = float(flat[place]), 1e-4
        sides = []
        for sign in (1, -1):
            flat[place] = value + sign * h
            sides.append(outer())
        flat[place] = value
        wanted = (sides[0] - sides[1]) / (2 * h)
        assert gradient.view(-1)[place].item() == pytest.approx(wanted, rel=1e-3, abs=1e-7)
        gaps.append(abs(plain.view(-1)[place].item() - wanted))
    assert max(gaps) > 1e-4, "the implicit part makes no difference here, so nothing was tested"


def test_the_perturbation_is_universal_and_raises_the_loss(sharp: nn.Module, some: Images) -> None:
    delta = IBau(rms=1 / 6)._universal(sharp, some, generator=stream(0, "r"))
    assert delta.shape == (1, 1, 6, 6)
    assert 0.99 <= delta.norm() <= 1 + 1e-5
    x = some.batch(some.ids)
    own = sharp(x).argmax(1)
    losses = [F.cross_entropy(sharp((x + d).clamp(0, 1)), own).item() for d in (0 * delta, delta)]
    assert losses[1] > losses[0] + 0.1
    assert all(p.requires_grad for p in sharp.parameters())


def test_the_share_that_is_perturbed(plain: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels
    delta = torch.full((1, 1, 6, 6), 0.3)
    weights = list(plain.parameters())
    found = IBau(share=0.4, iterations=0)._hypergradient(plain, weights, delta, x, y)
    seen = torch.cat([(x[:20] + delta).clamp(0, 1), x[20:]])
    wanted = torch.autograd.grad(F.cross_entropy(plain(seen), y), weights)
    for g, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(g, w)


def rounds(count: int) -> Callable[[nn.Module, Images], dict[str, float]]:
    return lambda net, images: IBau(rounds=count).repair(net, images, generator=stream(0, "r")).notes


def test_notes(plain: nn.Module, some: Images) -> None:
    assert rounds(0)(plain, some) == {}
    assert rounds(1)(plain, some)["perturbation"] > 0
