"""Adversarial neuron pruning: the scaled network, the masks and what is cut."""

from __future__ import annotations

import torch
from torch import nn

from bascule.core import rng
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.anp import Anp
from bascule.repairs.layers import hidden_layers_of, scaled
from bascule.repairs.run import run_repair


def test_scales_multiply_gains_and_shifts(residual: nn.Module) -> None:
    layers = hidden_layers_of(residual, (1, 6, 6))
    scales = tuple(torch.tensor([0.0, 1, 2, 3]) for _ in layers)
    found = scaled(layers, scales, tuple(2 * s for s in scales))
    assert found.keys() == {"norm1.weight", "norm1.bias", "second.weight"}
    norm1, second = residual.get_submodule("norm1"), residual.get_submodule("second")
    assert torch.equal(found["norm1.weight"], norm1.weight * scales[0])
    assert torch.equal(found["norm1.bias"], norm1.bias * scales[0] * 2)
    assert torch.equal(found["second.weight"][2], second.weight[2] * 2)  # type: ignore[index]


class Switch(nn.Module):
    """Six channels: the first sees the image; the others only noise that a change of weights turns into an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(2, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(x.flatten(1)[:, :2]).relu())


def switch() -> nn.Module:
    """Channel 0 gives the class by the first pixel. The others answer class 0 as soon as their bias rises by 2 %."""
    net = Switch()
    with torch.no_grad():
        net.hidden.weight.copy_(torch.tensor([[1.0, 0.0], *[[0.0, 0.98]] * 5]))
        net.hidden.bias.copy_(torch.tensor([0.0, *[-1.0] * 5]))
        net.out.weight.copy_(torch.tensor([[-8.0, *[40.0] * 5], [8.0, *[-40.0] * 5]]))
        net.out.bias.copy_(torch.tensor([4.0, -4.0]))
    return net.eval()


def two_kinds() -> Images:
    """The first pixel is the class, the second always white."""
    pixels = torch.full((40, 1, 1, 2), 255, dtype=torch.uint8)
    pixels[::2, 0, 0, 0] = 0
    labels = torch.tensor([0, 1] * 20)
    return Images(pixels=pixels, labels=labels, ids=torch.arange(40), classes=("dark", "light"))


def test_channels_that_a_small_change_turns_against_the_label_are_cut() -> None:
    net = switch()
    assert (net(two_kinds().batch(torch.arange(40))).argmax(1) == two_kinds().labels).all()
    found = run_repair(net, Anp(steps=60), two_kinds(), generator=stream(0, "r"))
    weight = found.model.get_submodule("hidden").weight
    assert isinstance(weight, torch.Tensor)
    assert (weight == 0).all(1).tolist() == [False] + [True] * 5
    assert found.notes["pruned"] == 5
    bias = found.model.get_submodule("hidden").bias
    assert torch.equal(bias, net.get_submodule("hidden").bias)  # type: ignore[arg-type]
    assert (found.model(two_kinds().batch(torch.arange(40))).argmax(1) == two_kinds().labels).all()


def test_without_an_adversary_nothing_is_cut() -> None:
    for settings in (Anp(steps=60, eps=0.0), Anp(steps=60, alpha=1.0)):
        assert run_repair(switch(), settings, two_kinds(), generator=stream(0, "r")).notes["pruned"] == 0


def test_masks_stay_within_bounds(plain: nn.Module, some: Images) -> None:
    layers = hidden_layers_of(plain, some.size)
    masks = Anp(steps=20, lr=500.0)._masks(plain, layers, some, generator=rng.stream(0, "r"))
    assert [len(mask) for mask in masks] == [4, 5, 7]
    assert torch.cat(masks).min() == 0
    assert torch.cat(masks).max() == 1
