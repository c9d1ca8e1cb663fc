"""The CIFAR-10 network of the study, piece by piece on tiny inputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.models.cifar_paper import CifarPaper, Unit
from bascule.models.denoise import DenoisingBlock
from bascule.models.normalise import Standardise


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def images(size: tuple[int, int, int], number: int = 4) -> Tensor:
    return torch.rand(number, *size, generator=stream(0, "images"))


def plain(unit: Unit) -> Unit:
    """The unit with batch norms that change nothing."""
    for part in unit.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.fill_(1 - part.eps)  # type: ignore[union-attr]
    return unit.eval()


def only_tap(conv: nn.Conv2d, row: int, column: int) -> None:
    """Output channel c is input channel c at one tap of the 3 x 3 window, if there is such a channel, else 0."""
    with torch.no_grad():
        conv.weight.zero_()
        for c in range(min(conv.in_channels, conv.out_channels)):
            conv.weight[c, c, row, column] = 1


def silenced(unit: Unit) -> Unit:
    nn.init.zeros_(unit.conv2.weight)
    return plain(unit)


# --- shape and size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "size", "wanted"),
    [
        # Stem 9 * 3 * 16. Units: two convolutions 9 * in * out, two norms of 2 * in and 2 * out.
        # Group 1: 5 * (2 * 9 * 16^2 + 4 * 16).
        # Group 2: 9 * 16 * 32 + 9 * 32^2 + 2 * 16 + 2 * 32, then 4 * (2 * 9 * 32^2 + 4 * 32); group 3 likewise.
        # Norm 2 * 64, linear 64 * 10 + 10.
        (CifarPaper(), (3, 32, 32), 432 + 23_360 + (13_920 + 74_240) + (55_488 + 295_936) + 128 + 650),
        (CifarPaper(), (1, 28, 28), 144 + 23_360 + 88_160 + 351_424 + 128 + 650),
        # A block of C channels has 2 C^2 + 3 C: see test_denoise.py.
        (CifarPaper(denoise=True), (3, 32, 32), 464_154 + 560 + 2_144 + 8_384),
        # Everything twice as wide: 9 * 3 * 32; 5 * (18 * 32^2 + 128); 9 * 32 * 64 + 9 * 64^2 + 64 + 128,
        # 4 * (18 * 64^2 + 256); 9 * 64 * 128 + 9 * 128^2 + 128 + 256, 4 * (18 * 128^2 + 512); 256; 1290.
        (
            CifarPaper(width=2),
            (3, 32, 32),
            864 + 92_800 + (55_488 + 295_936) + (221_568 + 1_181_696) + 256 + 1_290,
        ),
    ],
    ids=["narrow", "grey", "denoise", "wide"],
)
def test_number_of_parameters(architecture: CifarPaper, size: tuple[int, int, int], wanted: int) -> None:
    assert count(architecture.build(size, 10)) == wanted


def test_the_papers_network_has_464154_parameters() -> None:
    assert count(CifarPaper().build((3, 32, 32), 10)) == 464_154


@pytest.mark.parametrize("denoise", [False, True])
def test_sizes_of_the_maps(denoise: bool) -> None:
    net = CifarPaper(denoise=denoise).initialised((3, 32, 32), 10, seed=0).eval()
    shapes, x = {}, images((3, 32, 32), 1)
    for name, part in net.named_children():
        x = part(x)
        shapes[name] = tuple(x.shape[1:])
    wanted = {"standardise": (3, 32, 32), "stem": (16, 32, 32), "group1": (16, 32, 32), "group2": (32, 16, 16)}
    assert wanted.items() <= shapes.items()
    assert (shapes["group3"], shapes["pool"], shapes["fc"]) == ((64, 8, 8), (64, 1, 1), (10,))
    blocks = {name: shapes[name] for name, part in net.named_children() if isinstance(part, DenoisingBlock)}
    assert blocks == ({f"denoise{i}": shapes[f"group{i}"] for i in (1, 2, 3)} if denoise else {})
    order = list(shapes)
    assert all(order.index(name) == order.index(name.replace("denoise", "group")) + 1 for name in blocks)


@pytest.mark.parametrize("size", [(3, 64, 64), (1, 4, 4), (4, 12, 8)], ids=str)
def test_other_sizes_and_channels(size: tuple[int, int, int]) -> None:
    assert CifarPaper().initialised(size, 3, seed=0).eval()(images(size, 2)).shape == (2, 3)


@pytest.mark.parametrize("size", [(3, 30, 30), (3, 32, 31), (1, 27, 28), (3, 2, 4)], ids=str)
def test_sizes_whose_shortcuts_do_not_fit_are_refused(size: tuple[int, int, int]) -> None:
    said = f"cifar-paper needs images whose sides are multiples of 4, got {size[1]} x {size[2]}"
    with pytest.raises(RequestError, match=said):
        CifarPaper().build(size, 10)


# --- pieces by hand --------------------------------------------------------------------------------------------------


def test_standardisation_by_hand() -> None:
    standardise = Standardise()
    # Mean 2, population variance (4 + 0 + 4 + 0) / 4 = 2, over both channels at once.
    x = torch.tensor([[[[0.0, 2.0]], [[4.0, 2.0]]]])
    assert torch.allclose(standardise(x), torch.tensor([[[[-2.0, 0.0]], [[2.0, 0.0]]]]) / 2**0.5)
    # Standard deviation 0.1 is below 1 / sqrt(4 values): the bound divides.
    faint = torch.tensor([[[[0.0, 0.0], [0.2, 0.2]]]])
    assert torch.allclose(standardise(faint), torch.tensor([[[[-0.2, -0.2], [0.2, 0.2]]]]))
    # Each image on its own.
    assert torch.allclose(standardise(torch.cat([faint, 5 * faint])), torch.cat([standardise(faint), 10 * faint - 1]))


def test_gradient_flows_through_the_standardisation() -> None:
    x = torch.tensor([0.0, 3.0, 4.5, 1.0], dtype=torch.float64).reshape(1, 1, 2, 2).requires_grad_()
    (slope,) = torch.autograd.grad(Standardise()(x)[0, 0, 0, 0], x)
    # d/dx_j of (x_0 - m) / s with z = (x - m) / s: (delta_0j - 1/n - z_0 z_j / n) / s.
    values = x.detach().flatten()
    s = values.std(correction=0)  # above 1 / sqrt(4)
    z = (values - values.mean()) / s
    wanted = (torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64) - 1 / 4 - z[0] * z / 4) / s
    assert torch.allclose(slope.flatten(), wanted)
    assert torch.autograd.gradgradcheck(Standardise(), x)


def test_an_image_of_one_colour_has_a_finite_gradient() -> None:
    x = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    Standardise()(x)[0, 0, 0, 0].backward()
    assert x.grad is not None
    # 1 / 48 bounds the variance: (1 - 1 / 48) * sqrt(48) at the place itself.
    assert torch.allclose(x.grad[0, 0, 0, 0], torch.tensor(47 / 48 * 48**0.5))


def test_a_shortcut_is_the_raw_input() -> None:
    x = torch.tensor([-2.0, 3.0]).reshape(1, 1, 1, 2)
    assert torch.equal(silenced(Unit(1, 1))(x), x)


def test_the_first_shortcut_is_activated() -> None:
    x = torch.tensor([-2.0, 3.0]).reshape(1, 1, 1, 2)
    out = silenced(Unit(1, 1, activated_shortcut=True))(x)
    assert torch.allclose(out, torch.tensor([-0.2, 3.0]).reshape(1, 1, 1, 2), atol=1e-6)


def test_a_shortcut_to_more_channels_is_averaged_and_framed_by_zeros() -> None:
    x = torch.tensor([[[1.0, 2.0, 0.0, 0.0], [3.0, -4.0, 0.0, 8.0]], [[4.0, 4.0, 1.0, 1.0], [4.0, 4.0, 1.0, 1.0]]])
    out = silenced(Unit(2, 6, stride=2))(x.unsqueeze(0))
    wanted = torch.zeros(6, 1, 2)
    wanted[2] = torch.tensor([0.5, 2.0])
    wanted[3] = torch.tensor([4.0, 1.0])
    assert torch.equal(out[0], wanted)


@pytest.mark.parametrize(
    ("tap", "picked"),
    [
        ((0, 0), [[0, 2], [8, 10]]),  # nothing is padded above or to the left
        ((1, 1), [[5, 7], [13, 15]]),
        ((2, 2), [[10, 0], [0, 0]]),  # one row below and one column to the right
        ((2, 0), [[8, 10], [0, 0]]),
    ],
    ids=str,
)
def test_stride_two_pads_at_the_bottom_and_the_right(tap: tuple[int, int], picked: list[list[int]]) -> None:
    unit = plain(Unit(2, 4, stride=2))
    only_tap(unit.conv1, *tap)
    only_tap(unit.conv2, 1, 1)
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0] = torch.arange(16.0).reshape(4, 4)  # channel 0, whose shortcut ends in channel 1
    assert torch.allclose(unit(x)[0, 0], torch.tensor(picked, dtype=torch.float32), atol=1e-4)


def test_the_residual_branch_by_hand() -> None:
    unit = plain(Unit(1, 1))
    only_tap(unit.conv1, 1, 1)
    only_tap(unit.conv2, 1, 0)
    nn.init.constant_(unit.norm2.bias, -2.0)
    x = torch.tensor([-1.0, 3.0]).reshape(1, 1, 1, 2)
    # leaky: -0.1, 3; minus 2: -2.1, 1; leaky: -0.21, 1; the tap to the left: 0, -0.21; plus x.
    assert torch.allclose(unit(x).flatten(), torch.tensor([-1.0, 2.79]), atol=1e-5)


def test_where_shortcuts_are_activated_and_strides_are() -> None:
    net = CifarPaper().build((3, 32, 32), 10)
    units = {name: part for name, part in net.named_modules() if isinstance(part, Unit)}
    assert list(units) == [f"group{group}.{unit}" for group in (1, 2, 3) for unit in range(5)]
    assert [name for name, unit in units.items() if unit.activated_shortcut] == ["group1.0"]
    assert [name for name, unit in units.items() if unit.stride == 2] == ["group2.0", "group3.0"]
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {(part.momentum, part.eps, part.affine) for part in norms} == {(0.1, 1e-3, True)}
    assert not any(part.bias is not None for part in net.modules() if isinstance(part, nn.Conv2d))


def test_the_whole_is_its_parts_written_out() -> None:
    net = CifarPaper().initialised((3, 8, 8), 3, seed=0).double().eval()
    for seed, (name, value) in enumerate(net.state_dict().items()):
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand(value.shape, generator=stream(seed, "statistics"), dtype=torch.float64) + 0.5)
    state = net.state_dict()

    def activated(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{part}"].reshape(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (variance + 1e-3).sqrt() * weight + bias
        return torch.where(x > 0, x, 0.1 * x)

    x = images((3, 8, 8), 2).double()
    wanted = torch.stack([(image - image.mean()) / max(float(image.std(correction=0)), 192**-0.5) for image in x])
    wanted = F.conv2d(wanted, state["stem.weight"], padding=1)
    for name in [f"group{group}.{unit}" for group in (1, 2, 3) for unit in range(5)]:
        active = activated(wanted, f"{name}.norm1")
        shortcut, strided = active if name == "group1.0" else wanted, name in ("group2.0", "group3.0")
        if strided:
            rows, columns = shortcut.shape[2:]
            pooled = shortcut.reshape(2, -1, rows // 2, 2, columns // 2, 2).mean((3, 5))
            zeros = torch.zeros_like(pooled[:, : pooled.shape[1] // 2])
            shortcut = torch.cat([zeros, pooled, zeros], dim=1)
        # Convolving with padding 1 on all sides and keeping every second result from the second on is the same.
        inner = F.conv2d(active, state[f"{name}.conv1.weight"], padding=1)
        inner = inner[:, :, 1::2, 1::2] if strided else inner
        wanted = shortcut + F.conv2d(activated(inner, f"{name}.norm2"), state[f"{name}.conv2.weight"], padding=1)
    pooled = activated(wanted, "norm").mean((2, 3))
    assert torch.allclose(net(x), pooled @ state["fc.weight"].T + state["fc.bias"], rtol=1e-8)


# --- start, gradients, training --------------------------------------------------------------------------------------


def test_initial_weights() -> None:
    net = CifarPaper().initialised((3, 32, 32), 10, seed=0)
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d):
            std, entries = (2 / (9 * part.out_channels)) ** 0.5, part.weight.numel()
            assert abs(part.weight.std() / std - 1) < 5 / (2 * entries) ** 0.5, name
            assert abs(part.weight.mean()) < 5 * std / entries**0.5, name
        elif isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all(), name
            assert (part.bias == 0).all(), name
    bound = (3 / 64) ** 0.5
    assert bound * 0.98 < net.fc.weight.abs().max() <= bound  # type: ignore[union-attr, operator]
    assert not net.fc.bias.any()  # type: ignore[union-attr, operator]


def test_blocks_leave_the_other_layers_as_they_start() -> None:
    without, with_blocks = (CifarPaper(denoise=denoise).initialised((3, 8, 8), 3, seed=4) for denoise in (False, True))
    found = with_blocks.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in without.state_dict().items())


@pytest.mark.parametrize("denoise", [False, True])
def test_gradients_and_their_gradients_reach_image_and_weights(denoise: bool) -> None:
    net = CifarPaper(denoise=denoise).initialised((3, 8, 8), 3, seed=0)
    x = images((3, 8, 8)).requires_grad_()
    (slope,) = torch.autograd.grad(net(x)[:, 0].sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).any(1).all()
    convs = [part.weight for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert all(weight.grad is not None and weight.grad.any() and weight.grad.isfinite().all() for weight in convs)


@pytest.mark.parametrize("denoise", [False, True])
def test_a_few_steps_lower_the_loss_and_evaluation_is_steady(denoise: bool) -> None:
    net = CifarPaper(denoise=denoise).initialised((3, 8, 8), 3, seed=0)
    x, y = images((3, 8, 8), 12), torch.arange(12) % 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(net(x), y)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
    net.eval()
    assert torch.equal(net(x), net(x))
    assert torch.allclose(net(x)[:2], net(x[:2]), rtol=1e-4, atol=1e-4)
