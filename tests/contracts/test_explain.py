"""What every explanation keeps, whichever file or package it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.restore import untouched
from bascule.core.rng import borrowed_global_stream, stream
from bascule.explanations.contract import HeatMap, Projection, Spectrum
from bascule.explanations.run import run_heat_map, run_spectrum

NAMES = catalog.names("explain")
HEAT_MAPS = [name for name in NAMES if isinstance(catalog.build("explain", name), HeatMap)]
SPECTRA = [name for name in NAMES if isinstance(catalog.build("explain", name), Spectrum)]
PROJECTIONS = [name for name in NAMES if isinstance(catalog.build("explain", name), Projection)]

heat_maps = pytest.mark.parametrize("name", HEAT_MAPS)
spectra = pytest.mark.parametrize("name", SPECTRA)


def test_every_component_is_of_one_kind() -> None:
    assert {"saliency", "smoothgrad", "integrated-gradients", "grad-cam"} <= set(HEAT_MAPS)
    assert {"fourier", "pass-filter", "band-energy"} <= set(SPECTRA)
    assert {"latents"} <= set(PROJECTIONS)
    assert sorted(HEAT_MAPS + SPECTRA + PROJECTIONS) == sorted(NAMES)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_projection_keeps_two_groups_apart(name: str) -> None:
    made = catalog.build("explain", name)
    rows = torch.randn(60, 12, generator=stream(0, "rows"))
    rows[40:, 3] += 12
    points = made.project(rows, generator=stream(0, "contract"))
    assert points.shape == (60, 2)
    assert points.dtype == np.float32
    assert np.array_equal(points, made.project(rows, generator=stream(0, "contract")))
    assert (
        max(abs(points[40:, axis].mean() - points[:40, axis].mean()) / points[:, axis].std() for axis in (0, 1)) > 1.5
    )
    assert not np.isnan(made.project(torch.zeros(10, 3), generator=stream(0, "contract"))).any()


def ask(made: Any, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """What the component itself returns; with everything checked to be as it was."""
    before = x.clone(), y.clone(), {name: value.clone() for name, value in model.state_dict().items()}
    method = made.heat if isinstance(made, HeatMap) else made.response
    with untouched(model):
        found = method(model, x, y, generator=stream(seed, "contract")).detach()
    assert torch.equal(x, before[0]), "the images were modified"
    assert torch.equal(y, before[1]), "the labels were modified"
    assert not x.requires_grad
    assert all(torch.equal(value, before[2][name]) for name, value in model.state_dict().items())
    return found


# --- heat maps -------------------------------------------------------------------------------------------------------


class TwoCorners(nn.Module):
    """Label 0 is upright stripes in the upper left corner, label 1 level ones in the lower right; nothing else counts.

    The convolution answers to bright pixels that stand out to the right (channel 0) or downwards (channel 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.head = nn.Linear(2 * 64, 3)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, 0, 1, 1] = 1.0
            self.conv.weight[0, 0, 1, 2] = self.conv.weight[1, 0, 2, 1] = -1.0
            self.head.weight.zero_()
            self.head.bias.copy_(torch.tensor([0.0, 0.0, 6.0]))  # else the loss would rest on both corners alike
            seen = self.head.weight.view(3, 2, 8, 8)
            seen[0, 0, :4, :4] = seen[1, 1, 4:, 4:] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().flatten(1))


def striped(count: int) -> Tensor:
    """Grey images of different brightness with both stripes."""
    x = torch.linspace(0.1, 0.3, count).reshape(-1, 1, 1, 1).repeat(1, 1, 8, 8)
    x[:, :, :4, :4:2] += 0.6
    x[:, :, 4::2, 4:] += 0.6
    return x


def check_heat_map(heat_map: HeatMap) -> None:
    """The contract: heat >= 0, most of it where the model looks for the label asked about."""
    model, x = TwoCorners().eval(), striped(4)
    y = torch.tensor([0, 1, 0, 1])
    found = ask(heat_map, model, x, y)
    assert found.shape == (4, 8, 8)
    assert found.dtype == x.dtype
    assert found.isfinite().all()
    assert found.min() >= 0
    heat = found.clone()
    heat[1::2] = heat[1::2].flip(1, 2)  # so that the label's own corner is always the upper left one
    own = heat[:, :4, :4].flatten(1).sum(1) / heat.flatten(1).sum(1)
    other = heat[:, 4:, 4:].flatten(1).sum(1) / heat.flatten(1).sum(1)
    assert own.min() > 0.45, "the heat is not where the model looks"
    assert (own > other - 1e-6).all()


@heat_maps
def test_heat_map(name: str) -> None:
    check_heat_map(catalog.build("explain", name))


@component
class Constant(HeatMap):
    """Says nothing."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.ones_like(x[:, 0])


@component
class Picture(HeatMap):
    """Shows the image itself."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return x.amax(1)


@component
class InPlace(HeatMap):
    """Works on the caller's images."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return x.mul_(2).amax(1)


@pytest.mark.parametrize(
    ("heat_map", "complaint"),
    [
        (Constant, "not where the model looks"),
        (Picture, "not where the model looks"),
        (InPlace, "images were modified"),
    ],
    ids=["constant", "picture", "in-place"],
)
def test_a_bad_heat_map_fails_the_contract(heat_map: type[HeatMap], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_heat_map(heat_map())


# --- spectra ---------------------------------------------------------------------------------------------------------


class Comb(nn.Module):
    """Label 1 for images whose neighbouring columns alternate: all that counts is the highest horizontal frequency."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.linear = nn.Linear(size * size, 2)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.weight[1] = ((-1.0) ** torch.arange(size)).repeat(size)
            self.linear.bias.copy_(torch.tensor([0.1, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def check_spectrum(spectrum: Spectrum) -> None:
    """The contract: one number per image and frequency, another where the model looks than elsewhere."""
    model = Comb().eval()
    x = torch.full((6, 1, 8, 8), 0.5)
    x[::2, :, :, 1::2], x[::2, :, :, ::2] = 0.4, 0.6
    y = model(x).argmax(1).detach()
    assert y.tolist() == [1, 0, 1, 0, 1, 0]
    frequencies = spectrum.frequencies(8, 8)
    assert frequencies.dtype == torch.float64
    assert frequencies.ndim == 2
    assert frequencies.shape[1] in (1, 2)
    assert frequencies.norm(dim=1).max() <= 0.75  # a ring reaches half a ring further out
    found = ask(spectrum, model, x, y)
    assert found.shape == (6, len(frequencies))
    assert found.is_floating_point()
    if frequencies.shape[1] == 2:
        high = (frequencies == torch.tensor([0.0, 0.5])).all(1)
    else:
        high = (frequencies - 0.5).abs().squeeze(1) < 1e-6
    assert high.sum() == 1
    mean = found.double().mean(0)
    assert (mean[high] - mean[~high]).abs().min() > 0.2, "nothing depends on frequency"


@spectra
def test_spectrum(name: str) -> None:
    check_spectrum(catalog.build("explain", name))


@component
class Flat(Spectrum):
    """Says nothing."""

    def frequencies(self, height: int, width: int) -> Tensor:
        return torch.tensor([[0.25], [0.5]], dtype=torch.float64)

    def response(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.full((len(x), 2), 0.5)


def test_a_flat_spectrum_fails_the_contract() -> None:
    with pytest.raises(AssertionError, match="nothing depends on frequency"):
        check_spectrum(Flat())


# --- both ------------------------------------------------------------------------------------------------------------

every = pytest.mark.parametrize("name", HEAT_MAPS + SPECTRA)


def run(name: str, model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 3) -> Tensor:
    made = catalog.build("explain", name)
    if isinstance(made, HeatMap):
        return run_heat_map(model, made, x, y, generator=stream(0, "contract"), batch_size=batch_size)
    return run_spectrum(model, made, x, y, generator=stream(0, "contract"), batch_size=batch_size)


@every
def test_same_seed_same_answer(name: str, trained: Any) -> None:
    made = catalog.build("explain", name)
    before = torch.get_rng_state()
    first, again = (ask(made, trained.model, trained.x[:5], trained.y[:5]) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


@every
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_and_types(name: str, channels: int, count: int, dtype: torch.dtype) -> None:
    net = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 16}).initialised(
        (channels, 6, 5), 3, seed=0
    )
    x = torch.rand(count, channels, 6, 5, dtype=dtype, generator=stream(0, "images"))
    y = torch.arange(count) % 3
    found = run(name, net.to(dtype), x, y)
    assert found.dtype == dtype
    made = catalog.build("explain", name)
    assert found.shape == ((count, 6, 5) if isinstance(made, HeatMap) else (count, len(made.frequencies(6, 5))))
    assert found.isfinite().all()
    assert found.any() or not isinstance(made, HeatMap)


@every
@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
def test_everything_is_left_as_found(name: str, fails: bool) -> None:
    class StopHereError(Exception):
        pass

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten())
            self.head = nn.Linear(8, 3)
            self.fails = False

        def forward(self, x: Tensor) -> Tensor:
            answer = self.head(self.inner(x))
            if self.fails:
                raise StopHereError
            return answer

    with borrowed_global_stream(0, "net"):  # some draws have no unit that is active for these images
        net = Net().train()
    net.inner[1].eval()
    net.head.requires_grad_(False)
    x = torch.rand(4, 1, 4, 4, generator=stream(0, "images")).requires_grad_(True)
    y = torch.arange(4) % 3
    net(x).sum().backward()
    net.inner[0].register_forward_hook(lambda *_: None)
    net.fails = fails

    def state() -> dict[str, Any]:
        assert x.grad is not None
        return {
            "modes": [module.training for module in net.modules()],
            "parameters": [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in net.parameters()],
            "values": [value.tolist() for value in net.state_dict().values()],
            "attributes": [
                {key: list(value) if isinstance(value, dict) else str(value) for key, value in vars(module).items()}
                for module in net.modules()
            ],
            "images": (x.tolist(), x.grad.tolist(), x.requires_grad, y.tolist()),
            "grad": torch.is_grad_enabled(),
        }

    before = state()
    if fails:
        with pytest.raises(StopHereError):
            run(name, net, x, y)
    else:
        assert not run(name, net, x, y).requires_grad
    assert state() == before


@every
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_the_callers_gradient_mode_does_not_matter(name: str, grad: bool, trained: Any) -> None:
    with torch.set_grad_enabled(grad):
        found = run(name, trained.model, trained.x[:4], trained.y[:4])
    assert torch.equal(found, run(name, trained.model, trained.x[:4], trained.y[:4]))
