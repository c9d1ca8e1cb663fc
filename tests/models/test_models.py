"""Each architecture by hand: parameters, initial ranges, what is refused; and networks of the user's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.models.digits_cnn import DigitsCnn
from bascule.models.ibp_large import IbpLarge
from bascule.models.ibp_small import IbpSmall
from bascule.models.mnist_fast import MnistFast
from bascule.models.mnist_paper import MnistPaper

NETS = """\
import functools

import torch
from torch import nn

from bascule.core.errors import RequestError


def linear(size, classes, width=4):
    pixels = size[0] * size[1] * size[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.Linear(width, classes))


class Net(nn.Module):
    def __init__(self, size, classes):
        super().__init__()
        self.inner = linear(size, classes)

    def forward(self, x):
        return self.inner(x)


def tensor(size, classes):
    return torch.zeros(3)


def breaks(size, classes):
    raise ValueError("no such depth")


def refuses(size, classes):
    raise RequestError("only square images")


partial = functools.partial(linear, width=9)
"""


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("architecture", "size", "wanted"),
    [
        # 5 * 5 * 1 * 32 + 32, 5 * 5 * 32 * 64 + 64, 7 * 7 * 64 * 1024 + 1024, 1024 * 10 + 10
        (MnistPaper(), (1, 28, 28), 832 + 51_264 + 3_212_288 + 10_250),
        (MnistPaper(), (3, 32, 32), 2_432 + 51_264 + 4_195_328 + 10_250),
        # 4 * 4 * 1 * 16 + 16, 4 * 4 * 16 * 32 + 32, 7 * 7 * 32 * 100 + 100, 100 * 10 + 10
        (MnistFast(), (1, 28, 28), 272 + 8_224 + 156_900 + 1_010),
        (MnistFast(width=2, hidden=5), (3, 12, 8), 98 + 132 + 4 * 3 * 2 * 5 + 5 + 60),
        # 4 * 4 * 1 * 16 + 16, 4 * 4 * 16 * 32 + 32, 10 * 10 * 32 * 100 + 100, 100 * 10 + 10
        (IbpSmall(), (1, 28, 28), 272 + 8_224 + 320_100 + 1_010),
        (IbpSmall(width=2, hidden=5), (3, 11, 12), 98 + 132 + 4 * 1 * 5 + 5 + 60 + 4 * 5 * 1),
        # 9 * 3 * 2 + 2, 9 * 2 * 2 + 2, 9 * 2 * 4 + 4, twice 9 * 4 * 4 + 4; 5 x 4 cells left of 9 x 8
        (IbpLarge(width=2, hidden=5), (3, 9, 8), 56 + 38 + 76 + 2 * 148 + 4 * 5 * 4 * 5 + 5 + 60),
        # 3 * 3 * 1 * 32 + 32, 3 * 3 * 32 * 64 + 64, 4 * 4 * 64 * 128 + 128, 128 * 10 + 10
        (DigitsCnn(), (1, 8, 8), 320 + 18_496 + 131_200 + 1_290),
        (DigitsCnn(width=2, hidden=4), (3, 5, 7), 56 + 76 + 3 * 4 * 4 * 4 + 4 + 50),
    ],
    ids=[
        "paper-mnist",
        "paper-cifar",
        "fast-mnist",
        "fast-small",
        "ibp-mnist",
        "ibp-tiny",
        "ibp-large-tiny",
        "digits",
        "digits-small",
    ],
)
def test_number_of_parameters(architecture: Any, size: tuple[int, int, int], wanted: int) -> None:
    assert count(architecture.build(size, 10)) == wanted


def test_the_papers_network_has_3274634_parameters() -> None:
    assert count(MnistPaper().build((1, 28, 28), 10)) == 3_274_634


def test_the_papers_initial_weights_and_biases() -> None:
    net = MnistPaper().initialised((1, 28, 28), 10, seed=0)
    # Glorot: sqrt(6 / (fan in + fan out)); a bias of n counts n as both.
    bounds = {
        "0.weight": (6 / (25 * 1 + 25 * 32)) ** 0.5,
        "0.bias": (3 / 32) ** 0.5,
        "3.weight": (6 / (25 * 32 + 25 * 64)) ** 0.5,
        "3.bias": (3 / 64) ** 0.5,
        "7.weight": (6 / (3136 + 1024)) ** 0.5,
        "7.bias": (3 / 1024) ** 0.5,
        "9.weight": (6 / (1024 + 10)) ** 0.5,
        "9.bias": (3 / 10) ** 0.5,
    }
    parameters = dict(net.named_parameters())
    assert parameters.keys() == bounds.keys()
    for name, bound in bounds.items():
        values = parameters[name].detach().flatten()
        assert values.abs().max() <= bound, name
        assert values.abs().max() > bound * (1 - 4 / len(values)), name
        # Uniform: variance bound^2 / 3, mean 0; both within five standard errors.
        assert abs(values.mean()) < 5 * bound / (3 * len(values)) ** 0.5, name
        assert abs(values.var() / (bound**2 / 3) - 1) < 5 * (0.8 / len(values)) ** 0.5 + 2 / len(values), name


@pytest.mark.parametrize("architecture", [MnistPaper(), MnistFast()], ids=lambda found: type(found).__name__)
@pytest.mark.parametrize("size", [(1, 3, 28), (1, 28, 3)], ids=["low", "narrow"])
def test_images_too_small_are_refused(architecture: Any, size: tuple[int, int, int]) -> None:
    with pytest.raises(RequestError, match=rf"needs images of at least 4 x 4, got {size[1]} x {size[2]}"):
        architecture.build(size, 10)
    assert architecture.build((1, 4, 4), 10)(torch.zeros(1, 1, 4, 4)).shape == (1, 10)


# --- interval bound propagation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [IbpSmall(), IbpLarge(width=4, hidden=16)], ids=["small", "large"])
def test_weights_are_orthogonal_and_biases_zero(architecture: Any) -> None:
    net = architecture.initialised((1, 28, 28), 10, seed=0)
    layers = [layer for layer in net if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) in (4, 7)
    for layer in layers:
        weight = layer.weight.detach().flatten(1)
        rows, columns = weight.shape
        product = weight @ weight.T if rows <= columns else weight.T @ weight
        torch.testing.assert_close(product, torch.eye(min(rows, columns)), atol=1e-5, rtol=0)
        assert not layer.bias.any()


def test_the_large_network_has_the_papers_layers() -> None:
    # 9 * 1 * 64 + 64, 9 * 64 * 64 + 64, 9 * 64 * 128 + 128, twice 9 * 128 * 128 + 128, 14 * 14 * 128 * 512 + 512, 5130
    with torch.device("meta"):
        layers = [layer for layer in IbpLarge().build((1, 28, 28), 10) if not isinstance(layer, nn.ReLU)]
    assert sum(count(layer) for layer in layers) == 640 + 36_928 + 73_856 + 2 * 147_584 + 12_845_568 + 5_130
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Conv2d", "Conv2d", "ZeroPad2d", "Conv2d", "Conv2d", "Conv2d", "Flatten", "Linear", "Linear"]


@pytest.mark.parametrize(("side", "sides"), [(28, (0, 1, 0, 1)), (32, (0, 1, 0, 1)), (9, (1, 1, 1, 1))])
def test_stride_two_pads_as_tensorflow_does(side: int, sides: tuple[int, ...]) -> None:
    # SAME: ceil(28 / 2) = 14 positions reach 13 * 2 + 3 = 29 pixels, one more than there are, and it goes to the end.
    net = IbpLarge(width=2, hidden=3).build((1, side, side), 4)
    found = [layer.padding for layer in net if isinstance(layer, nn.ZeroPad2d)] or [(1, 1, 1, 1)]
    assert found == [sides]
    strided = next(place for place, layer in enumerate(net) if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2))
    assert net[: strided + 1](torch.zeros(1, 1, side, side)).shape[2:] == (-(-side // 2), -(-side // 2))


def test_normalisation_comes_first() -> None:
    pairs = ((0.4914, 0.2023), (0.4822, 0.1994), (0.4465, 0.201))
    net = IbpLarge(width=2, hidden=3, normalise=pairs).build((3, 4, 4), 2)
    x = torch.stack([torch.full((4, 4), mean + std) for mean, std in pairs]).unsqueeze(0)
    torch.testing.assert_close(net[0](x), torch.ones_like(x))
    assert not [key for key in net.state_dict() if key.startswith("0.")]
    with pytest.raises(RequestError, match="normalise names 3 channels, the images have 1"):
        IbpLarge(normalise=pairs).build((1, 4, 4), 2)


def test_images_too_small_for_the_small_network_are_refused() -> None:
    with pytest.raises(RequestError, match="ibp-small needs images of at least 10 x 10, got 9 x 28"):
        IbpSmall().build((1, 9, 28), 10)
    assert IbpSmall().build((1, 10, 10), 10)(torch.zeros(1, 1, 10, 10)).shape == (1, 10)


# --- a user's own ----------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a user's file `my_nets.py`."""
    (tmp_path / "my_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("my_nets", None)


@pytest.mark.parametrize("where", ["my_nets", "my_nets.py"])
@pytest.mark.parametrize("factory", ["linear", "Net"])
def test_a_users_function_or_class_makes_the_network(workplace: Path, where: str, factory: str) -> None:
    found = build("models", f"{where}:{factory}")
    assert found.build((3, 5, 4), 7)(torch.zeros(2, 3, 5, 4)).shape == (2, 7)


def test_a_users_network_is_initialised_by_the_seed(workplace: Path) -> None:
    found = build("models", "my_nets.py:linear")
    nets = [found.initialised((1, 4, 4), 3, seed=seed)[1].weight for seed in (0, 0, 1)]
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("my_nets.py:tensor", "my_nets.py:tensor returned Tensor, not an nn.Module"),
        (
            {"name": "my_nets.py:linear", "depth": 3},
            "my_nets.py:linear((1, 4, 4), 3, **{'depth': 3}) failed: TypeError: linear() got an unexpected keyword",
        ),
        ("my_nets.py:breaks", "my_nets.py:breaks((1, 4, 4), 3, **{}) failed: ValueError: no such depth"),
        ("my_nets.py:refuses", "only square images"),
    ],
    ids=["no-module", "unknown-setting", "error", "refusal"],
)
def test_what_a_users_network_gets_wrong_is_one_message(workplace: Path, spec: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        build("models", spec).initialised((1, 4, 4), 3, seed=0)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", ["my_nets.py:partial", "builtins:len"])
def test_a_factory_without_source_is_refused(workplace: Path, name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} is neither a function nor a class whose source can be read"):
        build("models", name)
