"""The order of layers, their norms, and silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bascule.core.errors import RequestError
from bascule.repairs.layers import Layer, capture, hidden_layers_of, layers_of


def test_order_and_norms(residual: nn.Module) -> None:
    found = layers_of(residual, (1, 6, 6))
    assert [(layer.name, layer.norm_name) for layer in found] == [("first", "norm1"), ("second", ""), ("fc", "")]
    assert [layer.scale[0] for layer in found] == ["norm1", "second", "fc"]
    assert [layer.channels for layer in found] == [4, 4, 3]
    assert [layer.name for layer in hidden_layers_of(residual, (1, 6, 6))] == ["first", "second"]


def test_layers_run_out_of_order_are_found_in_order() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(2, 3), nn.Linear(36, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x.flatten(1)))

    assert [layer.name for layer in layers_of(Swapped(), (1, 6, 6))] == ["first", "last"]


def test_the_model_is_left_as_found(residual: nn.Module) -> None:
    residual.train()
    before = {name: value.clone() for name, value in residual.state_dict().items()}
    layers_of(residual, (1, 6, 6))
    with pytest.raises(RuntimeError):
        layers_of(residual, (2, 6, 6))
    assert residual.training
    assert all(torch.equal(value, before[name]) for name, value in residual.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in residual.modules())


def test_one_layer_is_not_enough_to_prune() -> None:
    with pytest.raises(RequestError, match=r"no hidden convolution or linear layer.*fine-tune"):
        hidden_layers_of(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), (1, 6, 6))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_silence(norm: bool, affine: bool) -> None:
    """A silenced channel is zero for every image; the others are as before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = Layer("conv", nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=affine) if norm else None, "norm")
        x = torch.rand(4, 2, 5, 5)
    net = nn.Sequential(layer.module, layer.norm or nn.Identity())
    if layer.norm is not None:
        assert layer.norm.running_mean is not None
        layer.norm.running_mean.fill_(0.3)
    net.eval()
    with torch.no_grad():
        before = net(x)
        layer.silence(torch.tensor([False, True, False]))
        after = net(x)
    assert before[:, 1].abs().min() > 0
    torch.testing.assert_close(after[:, 1], torch.zeros_like(after[:, 1]))
    torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]])


def test_captured_outputs_and_inputs(plain: nn.Module) -> None:
    x = torch.ones(2, 1, 6, 6)
    with capture([plain[0], plain[2]]) as outputs, capture([plain[2]], inputs=True) as inputs:
        plain(x * 0)
        plain(x)
    torch.testing.assert_close(outputs[0], plain[0](x))
    torch.testing.assert_close(inputs[0], plain[0](x).relu())
    torch.testing.assert_close(outputs[1], plain[2](inputs[0]))
    assert not any(m._forward_hooks for m in plain.modules())
