"""The residual networks against torchvision's names and an independent forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.models.denoise import DenoisingBlock
from bascule.models.resnet18 import Resnet18
from bascule.models.resnet50 import Resnet50

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
CONVS = {"resnet18": 2, "resnet50": 3}
MADE: dict[str, Any] = {"resnet18": Resnet18(), "resnet50": Resnet50()}
each = pytest.mark.parametrize("name", MADE)


def torchvision_names(name: str) -> set[str]:
    """Names in the state dict of torchvision's network."""

    def norm(prefix: str) -> set[str]:
        parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {f"{prefix}.{part}" for part in parts}

    found = {"conv1.weight", "fc.weight", "fc.bias"} | norm("bn1")
    for layer, count in enumerate(BLOCKS[name], start=1):
        for block in range(count):
            for conv in range(1, CONVS[name] + 1):
                found |= {f"layer{layer}.{block}.conv{conv}.weight"} | norm(f"layer{layer}.{block}.bn{conv}")
        if layer > 1 or name == "resnet50":  # only the basic block keeps its 64 channels in the first layer
            found |= {f"layer{layer}.0.downsample.0.weight"} | norm(f"layer{layer}.0.downsample.1")
    return found


def net_of(architecture: Any, seed: int = 0, classes: int = 10, channels: int = 3) -> Any:
    return architecture.initialised((channels, 32, 32), classes, seed=seed)


def images(number: int = 2, side: int = 16) -> Tensor:
    return torch.rand(number, 3, side, side, generator=stream(0, "images"))


@each
def test_names_are_torchvisions(name: str) -> None:
    assert len(torchvision_names(name)) == {"resnet18": 122, "resnet50": 320}[name]  # as in its files
    assert set(net_of(MADE[name]).state_dict()) == torchvision_names(name)


def test_denoising_adds_names_and_changes_none() -> None:
    plain, denoised = (net_of(Resnet50(denoise=denoise)).state_dict() for denoise in (False, True))
    assert {name.partition(".")[0] for name in denoised.keys() - plain.keys()} == {"denoise3", "denoise4"}
    assert all(torch.equal(value, denoised[name]) for name, value in plain.items())


@pytest.mark.parametrize(
    ("architecture", "classes", "wanted"),
    [
        # torchvision's ResNet-50 has 25 557 032; 10 classes instead of 1000 save 990 * 2049.
        (Resnet50(), 1000, 25_557_032),
        (Resnet50(), 10, 25_557_032 - 990 * 2049),
        # A block of C channels with a gain has 2 C^2 + 4 C.
        (Resnet50(denoise=True), 1000, 25_557_032 + (2 * 1024**2 + 4 * 1024) + (2 * 2048**2 + 4 * 2048)),
        # torchvision's ResNet-18 has 11 689 512; the stem saves (49 - 9) * 3 * 64.
        (Resnet18(), 1000, 11_689_512 - 7_680),
        (Resnet18(), 10, 11_689_512 - 7_680 - 990 * 513),
    ],
    ids=["50", "50-cifar", "50-denoise", "18", "18-cifar"],
)
def test_number_of_parameters(architecture: Any, classes: int, wanted: int) -> None:
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.init, "kaiming_normal_", lambda weight, **_: weight)
        net = architecture.build((3, 32, 32), classes)
    assert sum(p.numel() for p in net.parameters()) == wanted


def test_the_wide_variant_doubles_all_but_the_stem() -> None:
    with torch.device("meta"):
        net = Resnet50(width=2).build((3, 32, 32), 10)
    assert net.conv1.weight.shape == (64, 3, 7, 7)
    assert net.layer1[0].conv1.weight.shape == (128, 64, 1, 1)
    assert net.layer4[2].conv3.weight.shape == (4096, 1024, 1, 1)
    assert net.fc.weight.shape == (10, 4096)


def forward(name: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network's answer in eval mode, from its weights alone."""

    def norm(x: Tensor, prefix: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{prefix}.{part}"].reshape(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) * weight / (variance + 1e-5).sqrt() + bias

    def conv(x: Tensor, prefix: str, stride: int = 1) -> Tensor:
        weight = state[f"{prefix}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    mean, std = {
        "resnet18": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        "resnet50": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }[name]
    x = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    x = norm(conv(x, "conv1", 2 if name == "resnet50" else 1), "bn1").clamp(min=0)
    if name == "resnet50":
        x = F.max_pool2d(x, 3, 2, 1)
    strided = 2 if name == "resnet50" else 1  # of the convolutions in a block, the 3 x 3 one
    for layer, count in enumerate(BLOCKS[name], start=1):
        for block in range(count):
            place, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner, last = x, CONVS[name]
            for i in range(1, last + 1):
                inner = norm(conv(inner, f"{place}.conv{i}", stride if i == strided else 1), f"{place}.bn{i}")
                inner = inner.clamp(min=0) if i < last else inner
            if f"{place}.downsample.0.weight" in state:
                x = norm(conv(x, f"{place}.downsample.0", stride), f"{place}.downsample.1")
            x = (x + inner).clamp(min=0)
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@each
def test_an_independent_forward_pass_agrees(name: str) -> None:
    net = net_of(MADE[name]).eval()
    state = net.state_dict()
    for seed, (key, value) in enumerate(state.items()):
        if "bn" in key and value.ndim:
            value.copy_(torch.rand(value.shape, generator=stream(seed, "values")) + 0.5)
    assert torch.allclose(net(images()), forward(name, state, images()), rtol=1e-3, atol=1e-3)


@each
def test_initial_weights(name: str) -> None:
    net = net_of(MADE[name])
    for key, part in net.named_modules():
        if isinstance(part, nn.Conv2d):
            entries = part.weight.numel()
            std = (2 / (part.out_channels * part.kernel_size[0] * part.kernel_size[1])) ** 0.5
            assert abs(part.weight.std() / std - 1) < 5 / (2 * entries) ** 0.5, key
            assert part.bias is None, key
        elif isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all(), key
            assert (part.bias == 0).all(), key
            assert (part.eps, part.momentum) == (1e-5, {"resnet18": 0.1, "resnet50": 0.003}[name]), key


def test_denoising_blocks_have_the_networks_batch_norm() -> None:
    net = net_of(Resnet50(denoise=True, momentum=0.25))
    blocks = {key: part for key, part in net.named_modules() if isinstance(part, DenoisingBlock)}
    assert {key: part.conv.in_channels for key, part in blocks.items()} == {"denoise3": 1024, "denoise4": 2048}
    for part in blocks.values():
        assert (part.norm.momentum, part.norm.eps) == (0.25, 1e-5)
        assert (part.norm.weight == 1).all()
        assert abs(part.theta.weight.std() / 0.01 - 1) < 0.05
    x, seen = images(2), {}
    for key, part in blocks.items():
        part.register_forward_pre_hook(lambda _, inputs, key=key: seen.update({key: tuple(inputs[0].shape)}))
    net.eval()(images(2, 64))
    assert seen == {"denoise3": (2, 1024, 4, 4), "denoise4": (2, 2048, 2, 2)}
    assert not torch.allclose(net(x), net_of(Resnet50()).eval()(x))


@each
@pytest.mark.parametrize("side", [1, 7, 33])
def test_any_size_is_taken(name: str, side: int) -> None:
    assert net_of(MADE[name]).eval()(images(2, side)).shape == (2, 10)


def test_grey_images_need_their_own_normalisation() -> None:
    with pytest.raises(RequestError, match="mean: has 3 entries; give one for all channels, or one for each of 1"):
        Resnet18().build((1, 28, 28), 10)
    with pytest.raises(RequestError, match="std: has 2 entries"):
        Resnet18(std=(1.0, 1.0)).build((3, 28, 28), 10)
    net = net_of(Resnet18(mean=(0.5,), std=(0.25,)), channels=1).eval()
    assert torch.equal(net.normalise(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 2.0))
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_normalisation_by_channel() -> None:
    normalise = net_of(Resnet18(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))).normalise
    found = normalise(torch.ones(1, 3, 1, 1)).flatten()
    assert torch.equal(found, torch.tensor([1.0, 3.0, 0.5]))
    assert normalise.double()(torch.ones(1, 3, 1, 1, dtype=torch.float64)).dtype == torch.float64


small_runs = pytest.mark.parametrize(
    ("architecture", "side"), [(Resnet18(), 16), (Resnet50(denoise=True, momentum=0.1), 64)], ids=["18", "50-denoise"]
)


@small_runs
def test_gradients_and_their_gradients_reach_image_and_weights(architecture: Any, side: int) -> None:
    net = net_of(architecture, classes=3)
    x = images(2, side).requires_grad_()
    (slope,) = torch.autograd.grad(net(x)[:, 0].sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).any(1).all()
    convs = [part.weight.grad for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert all(found is not None and found.any() and found.isfinite().all() for found in convs)


@small_runs
def test_a_few_steps_lower_the_loss_and_evaluation_is_steady(architecture: Any, side: int) -> None:
    net, y = net_of(architecture, classes=3), torch.arange(12) % 3
    x = 0.4 * images(12, side)
    x[torch.arange(12), y] += 0.6  # red, green and blue images
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=3e-4), []
    for _ in range(4):
        loss = F.cross_entropy(net(x), y)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    net.eval()
    assert torch.equal(net(x), net(x))
