"""PreActResNet-18 against BackdoorBench's names, shapes and count, and an independent forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.models.preactresnet18 import Preactresnet18
from bascule.models.weights import load_weights

WIDTHS = (64, 128, 256, 512)


def shapes(classes: int = 10) -> dict[str, tuple[int, ...]]:
    """The state dict of BackdoorBench's network, written down from its description."""

    def norm(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
        parts = ("weight", "bias", "running_mean", "running_var")
        return {f"{prefix}.{part}": (channels,) for part in parts} | {f"{prefix}.num_batches_tracked": ()}

    found: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 3, 3)}
    before = 64
    for layer, width in enumerate(WIDTHS, start=1):
        for block in range(2):
            place = f"layer{layer}.{block}"
            found |= norm(f"{place}.bn1", before) | {f"{place}.conv1.weight": (width, before, 3, 3)}
            found |= norm(f"{place}.bn2", width) | {f"{place}.conv2.weight": (width, width, 3, 3)}
            if layer > 1 and block == 0:
                found[f"{place}.shortcut.0.weight"] = (width, before, 1, 1)
            before = width
    return found | {"linear.weight": (classes, 512), "linear.bias": (classes,)}


def net_of(architecture: Any, seed: int = 0, classes: int = 10, channels: int = 3) -> Any:
    return architecture.initialised((channels, 32, 32), classes, seed=seed)


def images(side: int = 16) -> Tensor:
    return torch.rand(2, 3, side, side, generator=stream(0, "images"))


def forward(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network's answer in eval mode, from its weights alone."""

    def active(x: Tensor, prefix: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{prefix}.{part}"].reshape(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) * weight / (variance + 1e-5).sqrt() + bias).clamp(min=0)

    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
    x = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for layer in range(1, 5):
        for block in range(2):
            place, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = active(x, f"{place}.bn1")
            if f"{place}.shortcut.0.weight" in state:
                x = F.conv2d(inner, state[f"{place}.shortcut.0.weight"], stride=stride)
            inner = F.conv2d(inner, state[f"{place}.conv1.weight"], stride=stride, padding=1)
            x = x + F.conv2d(active(inner, f"{place}.bn2"), state[f"{place}.conv2.weight"], padding=1)
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize("classes", [10, 43])
def test_names_and_shapes_are_backdoorbenchs(classes: int) -> None:
    net = net_of(Preactresnet18(), classes=classes)
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == shapes(classes)
    assert len(shapes()) == 102
    assert sum(p.numel() for p in net.parameters()) == 11_171_146 + (classes - 10) * 513


def test_an_independent_forward_pass_agrees() -> None:
    net = net_of(Preactresnet18()).eval()
    state = net.state_dict()
    for seed, (key, value) in enumerate(state.items()):
        if "bn" in key and value.ndim:
            value.copy_(torch.rand(value.shape, generator=stream(seed, "values")) + 0.5)
    assert torch.allclose(net(images()), forward(state, images()), rtol=1e-3, atol=1e-3)


def test_its_files_fit(tmp_path: Path) -> None:
    """`attack_result.pt` keeps the state dict under `model`, beside the name and the number of classes."""
    given = net_of(Preactresnet18(), seed=1).state_dict()
    torch.save({"model_name": "preactresnet18", "num_classes": 10, "model": given}, tmp_path / "attack_result.pt")
    net = net_of(Preactresnet18(weights=str(tmp_path / "attack_result.pt")))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in given.items())
    torch.save({f"module.{name}": value for name, value in given.items()}, tmp_path / "parallel.pth")
    again = net_of(Preactresnet18())
    load_weights(again, str(tmp_path / "parallel.pth"))
    assert torch.equal(again.linear.weight, given["linear.weight"])


def test_initial_weights_are_torchs_own() -> None:
    net = net_of(Preactresnet18())
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            bound = (part.in_channels * part.kernel_size[0] * part.kernel_size[1]) ** -0.5  # uniform in (-bound, bound)
            assert part.weight.abs().max() <= bound
            assert abs(part.weight.std() / bound * 3**0.5 - 1) < 5 / part.weight.numel() ** 0.5
        elif isinstance(part, nn.BatchNorm2d):
            assert (part.eps, part.momentum) == (1e-5, 0.1)
            assert bool((part.weight == 1).all() and (part.bias == 0).all())


@pytest.mark.parametrize("side", [1, 7, 33])
def test_any_size_is_taken(side: int) -> None:
    assert net_of(Preactresnet18()).eval()(images(side)).shape == (2, 10)


def test_grey_images_need_their_own_normalisation() -> None:
    with pytest.raises(RequestError, match="mean: has 3 entries; give one for all channels, or one for each of 1"):
        Preactresnet18().build((1, 28, 28), 10)
    net = net_of(Preactresnet18(mean=(0.5,), std=(0.5,)), channels=1).eval()
    assert net.conv1.weight.shape == (64, 1, 3, 3)
    assert torch.equal(net.normalise(torch.ones(1, 1, 2, 2)), torch.ones(1, 1, 2, 2))
