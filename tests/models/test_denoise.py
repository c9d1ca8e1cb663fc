"""The denoising block against NumPy and against the formula written out, once and twice differentiated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from bascule.core.rng import stream
from bascule.models import denoise
from bascule.models.cifar_paper import CifarPaper
from bascule.models.denoise import DenoisingBlock, attention
from bascule.models.mnist_paper import MnistPaper


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=stream(seed, "numbers"), dtype=dtype)


def explicit(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The formula as it is written."""
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1) @ value


def lively(channels: int = 4, *, gain: bool = False) -> DenoisingBlock:
    """A block in which every parameter and statistic matters."""
    block = DenoisingBlock(channels, gain=gain, eps=0.5).double()
    for seed, (name, value) in enumerate(block.state_dict().items()):
        if name != "norm.num_batches_tracked":
            value.copy_(draw(*value.shape, seed=seed).abs() + 0.1 if "var" in name else draw(*value.shape, seed=seed))
    return block


def by_hand(block: DenoisingBlock, x: np.ndarray, *, batch_statistics: bool) -> np.ndarray:
    """The block position by position, in NumPy."""
    state = {name: value.numpy() for name, value in block.state_dict().items()}

    def one_by_one(name: str, column: np.ndarray) -> np.ndarray:
        return state[f"{name}.weight"][:, :, 0, 0] @ column + state[f"{name}.bias"]

    batch, channels, height, width = x.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    mixed = np.empty_like(x)
    for n in range(batch):
        for here in places:
            query = one_by_one("theta", x[n, :, *here])
            scores = [query @ one_by_one("phi", x[n, :, *there]) / np.sqrt(channels / 2) for there in places]
            weights = np.exp(scores) / np.exp(scores).sum()
            found = sum(weight * x[n, :, *there] for weight, there in zip(weights, places, strict=True))
            mixed[n, :, *here] = one_by_one("conv", found)
    out = x.copy()
    for c in range(channels):
        mean = mixed[:, c].mean() if batch_statistics else state["norm.running_mean"][c]
        variance = mixed[:, c].var() if batch_statistics else state["norm.running_var"][c]
        normed = (mixed[:, c] - mean) / np.sqrt(variance + block.norm.eps)
        gain = state["norm.weight"][c] if "norm.weight" in state else 1.0
        shift = state["norm.bias"][c] if "norm.bias" in state else state["shift"][c]
        out[:, c] += gain * normed + shift
    return out


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_it_is_what_numpy_computes(gain: bool, training: bool) -> None:
    block = lively(gain=gain).train(training)
    x = draw(2, 4, 3, 2, seed=99)
    wanted = by_hand(block, x.numpy(), batch_statistics=training)
    assert torch.allclose(block(x), torch.from_numpy(wanted), rtol=1e-10)
    assert torch.allclose(block(x.contiguous(memory_format=torch.channels_last)), torch.from_numpy(wanted), rtol=1e-10)


def test_two_positions_by_hand() -> None:
    """Channels (2, 0) and (0, 0) at two places, theta = phi = the first channel, conv the identity, no statistics."""
    block = DenoisingBlock(2, eps=0.0).eval()
    with torch.no_grad():
        for layer in (block.theta, block.phi):
            layer.weight.copy_(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))
        block.conv.weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
    out = block(torch.tensor([[2.0, 0.0], [0.0, 0.0]]).reshape(1, 2, 1, 2))
    # C / 2 = 1. First place: scores 4 and 0, so it gains 2 e^4 / (e^4 + 1); second: 0 and 0, so it gains 1.
    assert torch.allclose(out[0, :, 0], torch.tensor([[2 + 2 * 0.98201379, 1.0], [0.0, 0.0]]), atol=1e-6)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    block = DenoisingBlock(64)
    for layer in (block.theta, block.phi):
        assert layer.weight.shape == (32, 64, 1, 1)
        assert abs(layer.weight.std() / 0.01 - 1) < 0.06
        assert abs(layer.weight.mean()) < 0.01 * 4 / 2048**0.5
    bound = (6 / 128) ** 0.5
    assert bound * 0.99 < block.conv.weight.abs().max() <= bound
    assert not any(layer.bias.any() for layer in (block.theta, block.phi, block.conv))
    assert (block.norm.momentum, block.norm.eps, block.norm.weight, block.norm.bias) == (0.001, 1e-3, None, None)
    assert block.shift is not None
    assert not block.shift.any()
    gained = DenoisingBlock(64, gain=True)
    assert gained.shift is None
    assert torch.equal(gained.norm.weight, torch.ones(64))
    x = draw(2, 64, 2, 2, dtype=torch.float32)
    assert (gained(x) - x).abs().mean() > 0.1, "the branch does not start at zero"


# --- attention -------------------------------------------------------------------------------------------------------


def parts(count: int, width: int, values: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = ((2, count, width), (2, count, width), (2, count, values))
    return [draw(*shape, seed=seed, dtype=dtype).requires_grad_() for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize(("count", "width", "values"), [(5, 2, 4), (3, 3, 3), (70, 8, 16), (1, 1, 2)])
def test_attention_and_both_derivatives_are_those_of_the_formula(count: int, width: int, values: int) -> None:
    inputs = parts(count, width, values)
    weight = draw(2, count, values, seed=7)
    found, wanted = attention(*inputs), explicit(*inputs)
    assert torch.allclose(found, wanted, atol=1e-12)
    slopes = torch.autograd.grad(wanted, inputs, weight, create_graph=True)
    for once in (False, True):  # the fused backward pass, and the one written out
        own = torch.autograd.grad(found, inputs, weight, create_graph=once, retain_graph=True)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(own, slopes, strict=True))
    second, wanted_second = (
        torch.autograd.grad(sum(slope.square().sum() for slope in found), inputs) for found in (own, slopes)
    )
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(second, wanted_second, strict=True))


def test_attention_in_single_and_mixed_precision() -> None:
    inputs = parts(256, 8, 16, torch.float32)
    assert torch.allclose(attention(*inputs), explicit(*inputs), atol=1e-5)
    query, key, value = inputs
    mixed = attention(query.bfloat16(), key.bfloat16(), value)
    assert mixed.dtype == torch.bfloat16
    mixed.sum().backward()
    assert value.grad is not None
    assert value.grad.dtype == torch.float32
    assert torch.allclose(mixed.float(), explicit(*inputs), atol=0.1)


def test_numerical_derivatives() -> None:
    inputs = parts(3, 2, 4)
    assert gradcheck(attention, inputs)
    assert gradgradcheck(attention, inputs)


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_block_differentiated_twice(gain: bool, training: bool) -> None:
    block = lively(2, gain=gain).train(training)
    names, values = zip(*block.named_parameters(), strict=True)

    def run(x: Tensor, *parameters: Tensor) -> Any:
        statistics = {name: value.clone() for name, value in block.named_buffers()}
        return functional_call(block, {**dict(zip(names, parameters, strict=True)), **statistics}, x)

    x = draw(2, 2, 1, 2, seed=5).requires_grad_()
    assert gradcheck(run, (x, *values))
    assert gradgradcheck(run, (x, *values))


def largest_kept(net: nn.Module, x: Tensor) -> int:
    """Entries of the largest tensor kept for the backward pass."""
    sizes = [0]

    def pack(kept: Tensor) -> Tensor:
        sizes.append(kept.numel())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        net(x)
    return max(sizes)


def test_weights_of_all_pairs_are_not_kept() -> None:
    x = draw(1, 4, 16, 16, dtype=torch.float32).requires_grad_()
    assert largest_kept(DenoisingBlock(4), x) == 4 * 256  # against 256 * 256


# --- in the networks of the study ------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [MnistPaper(denoise=True), CifarPaper(denoise=True)], ids=["mnist", "cifar"])
def test_a_penalty_on_input_gradients_trains_as_with_the_formula(
    architecture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = architecture.initialised((1, 8, 8), 3, seed=0).double().eval()
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, DenoisingBlock):  # attention is nearly uniform at the start
                part.theta.weight *= 10
                part.phi.weight *= 10
    x = torch.rand(2, 1, 8, 8, generator=stream(0, "images"), dtype=torch.float64).requires_grad_()

    # A bias of phi moves all scores of a place alike, so nothing depends on it.
    names, wanted = zip(*((k, p) for k, p in net.named_parameters() if not k.endswith("phi.bias")), strict=True)

    def slopes() -> list[Tensor]:
        logits = net(x)
        (slope,) = torch.autograd.grad(logits[:, 0].sum(), x, create_graph=True)
        found = torch.autograd.grad(slope.square().sum(), (x, *wanted), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip((x, *wanted), found, strict=True)]

    own = slopes()
    assert own[0].any()
    assert all(part.any() for name, part in zip(names, own[1:], strict=True) if name.endswith("theta.weight"))
    monkeypatch.setattr(denoise, "attention", explicit)
    for name, one, other in zip(("x", *names), own, slopes(), strict=True):
        assert (one - other).norm() <= 1e-9 * other.norm(), name


def test_mnist_blocks_follow_each_pooling_and_start_as_in_the_study() -> None:
    net = MnistPaper(denoise=True).initialised((1, 28, 28), 10, seed=0)
    kinds = [type(part).__name__ for part in net.children()]
    stage = ["Conv2d", "ReLU", "MaxPool2d", "DenoisingBlock"]
    assert kinds == [*stage, *stage, "Flatten", "Linear", "ReLU", "Linear"]
    # A block of C channels: theta and phi C * C / 2 + C / 2 each, conv C * C + C, shift C: 2 C^2 + 3 C.
    assert sum(p.numel() for p in net.parameters()) == 3_274_634 + (2 * 32**2 + 3 * 32) + (2 * 64**2 + 3 * 64)
    assert not any(value.any() for name, value in net.named_parameters() if name.endswith(("bias", "shift")))
    bound = (6 / (25 * 1 + 25 * 32)) ** 0.5
    assert bound * 0.98 < net[0].weight.abs().max() <= bound


def test_without_blocks_the_mnist_network_is_the_one_before() -> None:
    net = MnistPaper().initialised((1, 8, 8), 3, seed=0)
    assert list(net.state_dict()) == [f"{layer}.{part}" for layer in (0, 3, 7, 9) for part in ("weight", "bias")]
    torch.manual_seed(5)
    # The constructors draw first, in order, then each layer's weight and bias.
    layers = [nn.Conv2d(1, 32, 5), nn.Conv2d(32, 64, 5), nn.Linear(256, 1024), nn.Linear(1024, 3)]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        assert layer.bias is not None
        nn.init.uniform_(layer.bias, -((3 / len(layer.bias)) ** 0.5), (3 / len(layer.bias)) ** 0.5)
    torch.manual_seed(5)
    own = MnistPaper().build((1, 8, 8), 3)
    wanted = [value for layer in layers for value in (layer.weight, layer.bias)]
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), wanted, strict=True))
