"""What every explanation keeps, whichever file or package it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bascule.core.restore import untouched
from bascule.core.returned import returned
from bascule.core.rng import borrowed_global_stream, stream
from bascule.explanations.contract import HeatMap, Projection, Spectrum
from bascule.explanations.run import run_heat_map, run_spectrum
from bascule.testing.cases import architecture, same, state, trained
from bascule.testing.demands import demand, one_sentence
from bascule.testing.settings import check_settings


@one_sentence
def check_explanation(explanation: HeatMap | Spectrum | Projection) -> None:
    """The contract of an explanation: a heat map is hot where the model looks, a spectrum differs where it does, a
    projection keeps two groups apart; and everything is left as it was found.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(explanation)
    if isinstance(explanation, Projection):
        check_projection(explanation)
        return
    if isinstance(explanation, HeatMap):
        check_heat_map(explanation)
    else:
        check_spectrum(explanation)
    check_repeats(explanation)
    check_shapes(explanation)
    for fails in (False, True):
        check_left(explanation, fails=fails)
    check_gradient_mode(explanation)


def check_projection(projection: Projection) -> None:
    """Points of two groups lie apart, the same each time, and rows that are all alike are no error."""
    rows = torch.randn(60, 12, generator=stream(0, "rows"))
    rows[40:, 3] += 12
    points = projection.project(rows, generator=stream(0, "contract"))
    demand(points.shape == (60, 2), f"60 rows become points of shape {points.shape}")
    demand(points.dtype == np.float32, f"the points are {points.dtype}")
    again = projection.project(rows, generator=stream(0, "contract"))
    demand(np.array_equal(points, again), "the same stream gives other points")
    apart = max(abs(points[40:, axis].mean() - points[:40, axis].mean()) / points[:, axis].std() for axis in (0, 1))
    demand(apart > 1.5, f"two groups lie {apart:.2f} standard deviations apart")
    alike = projection.project(torch.zeros(10, 3), generator=stream(0, "contract"))
    demand(not np.isnan(alike).any(), "rows that are all alike become NaN")


def _answer(explanation: HeatMap | Spectrum, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """What the component itself returns; with everything checked to be as it was."""
    before = x.clone(), y.clone(), {name: value.clone() for name, value in model.state_dict().items()}
    name = "heat" if isinstance(explanation, HeatMap) else "response"
    with untouched(model):
        found = getattr(explanation, name)(model, x, y, generator=stream(seed, "contract"))
    found = returned(found, Tensor, who=explanation, method=name).detach()
    demand(torch.equal(x, before[0]), "the images were modified")
    demand(torch.equal(y, before[1]), "the labels were modified")
    demand(not x.requires_grad, "the images want a gradient afterwards")
    demand(same(dict(model.state_dict()), before[2]), "the model was changed")
    return found


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
        logits: Tensor = self.head(self.conv(x).relu().flatten(1))
        return logits


def striped(count: int) -> Tensor:
    """Grey images of different brightness with both stripes."""
    x = torch.linspace(0.1, 0.3, count).reshape(-1, 1, 1, 1).repeat(1, 1, 8, 8)
    x[:, :, :4, :4:2] += 0.6
    x[:, :, 4::2, 4:] += 0.6
    return x


def check_heat_map(heat_map: HeatMap) -> None:
    """Heat >= 0, most of it where the model looks for the label asked about."""
    with borrowed_global_stream(0, "net"):  # which sets its weights by hand, but draws them first
        model = TwoCorners().eval()
    x = striped(4)
    y = torch.tensor([0, 1, 0, 1])
    found = _answer(heat_map, model, x, y)
    demand(found.shape == (4, 8, 8), f"four images of 8 x 8 have heat of shape {tuple(found.shape)}")
    demand(found.dtype == x.dtype, f"the heat is {found.dtype}, the images {x.dtype}")
    demand(found.isfinite().all(), "a heat is not finite")
    demand(found.min() >= 0, "a heat is below zero")
    heat = found.clone()
    heat[1::2] = heat[1::2].flip(1, 2)  # so that the label's own corner is always the upper left one
    own = heat[:, :4, :4].flatten(1).sum(1) / heat.flatten(1).sum(1)
    other = heat[:, 4:, 4:].flatten(1).sum(1) / heat.flatten(1).sum(1)
    demand(own.min() > 0.45, "the heat is not where the model looks")
    demand((own > other - 1e-6).all(), "more heat is where the model looks for another label")


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
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def check_spectrum(spectrum: Spectrum) -> None:
    """One number per image and frequency, another where the model looks than elsewhere."""
    with borrowed_global_stream(0, "net"):
        model = Comb().eval()
    x = torch.full((6, 1, 8, 8), 0.5)
    x[::2, :, :, 1::2], x[::2, :, :, ::2] = 0.4, 0.6
    y = model(x).argmax(1).detach()
    assert y.tolist() == [1, 0, 1, 0, 1, 0]
    frequencies = spectrum.frequencies(8, 8)
    demand(frequencies.dtype == torch.float64, f"the frequencies are {frequencies.dtype}")
    demand(frequencies.ndim == 2, f"the frequencies have shape {tuple(frequencies.shape)}")
    demand(frequencies.shape[1] in (1, 2), f"a frequency is {frequencies.shape[1]} numbers")
    # a ring reaches half a ring further out
    demand(frequencies.norm(dim=1).max() <= 0.75, "a frequency is beyond what pixels can show")
    found = _answer(spectrum, model, x, y)
    demand(found.shape == (6, len(frequencies)), f"not one number per image and frequency: {tuple(found.shape)}")
    demand(found.is_floating_point(), f"the response is {found.dtype}")
    if frequencies.shape[1] == 2:
        high = (frequencies == torch.tensor([0.0, 0.5])).all(1)
    else:
        high = (frequencies - 0.5).abs().squeeze(1) < 1e-6
    demand(high.sum() == 1, "the highest horizontal frequency is not among the frequencies, or more than once")
    mean = found.double().mean(0)
    demand((mean[high] - mean[~high]).abs().min() > 0.2, "nothing depends on frequency")


def _ran(explanation: HeatMap | Spectrum, model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 3) -> Tensor:
    if isinstance(explanation, HeatMap):
        return run_heat_map(model, explanation, x, y, generator=stream(0, "contract"), batch_size=batch_size)
    return run_spectrum(model, explanation, x, y, generator=stream(0, "contract"), batch_size=batch_size)


def check_repeats(explanation: HeatMap | Spectrum) -> None:
    """The same stream gives the same answer, and nothing else is drawn from."""
    model, x, y = trained()
    before = torch.get_rng_state()
    first, again = (_answer(explanation, model, x[:5].clone(), y[:5].clone()) for _ in range(2))
    demand(torch.equal(first, again), "the same stream gives another answer")
    demand(torch.equal(torch.get_rng_state(), before), "the global generator was used")


def check_shapes(explanation: HeatMap | Spectrum) -> None:
    """Grey and colour images that are not square, one or several, of either precision."""
    for channels in (1, 3):
        for count in (1, 4):
            for dtype in (torch.float32, torch.float64):
                net = architecture(8, 16).initialised((channels, 6, 5), 3, seed=0).to(dtype)
                x = torch.rand(count, channels, 6, 5, dtype=dtype, generator=stream(0, "images"))
                found = _ran(explanation, net, x, torch.arange(count) % 3)
                demand(found.dtype == dtype, f"for {dtype} images the answer is {found.dtype}")
                is_map = isinstance(explanation, HeatMap)
                wanted = (6, 5) if isinstance(explanation, HeatMap) else (len(explanation.frequencies(6, 5)),)
                demand(found.shape == (count, *wanted), f"{count} image(s) have an answer of {tuple(found.shape)}")
                demand(found.isfinite().all(), "the answer is not finite")
                demand(found.any() or not is_map, "the map has no heat")


class StopHereError(Exception):
    """A model that fails."""


class Net(nn.Module):
    """With batch norm, a step in place, and a switch by which it fails."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten())
        self.head = nn.Linear(8, 3)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.inner(x))
        if self.fails:
            raise StopHereError
        return answer


def check_left(explanation: HeatMap | Spectrum, *, fails: bool = False) -> None:
    """Model and images are left as they are found, also where the model fails."""
    with borrowed_global_stream(0, "net"):  # some draws have no unit that is active for these images
        net = Net().train()
    net.inner[1].eval()
    net.head.requires_grad_(False)
    x = torch.rand(4, 1, 4, 4, generator=stream(0, "images")).requires_grad_(True)
    y = torch.arange(4) % 3
    net(x).sum().backward()
    net.inner[0].register_forward_hook(lambda *_: None)
    net.fails = fails

    def everything() -> list[Any]:
        attributes = [
            {key: list(value) if isinstance(value, dict) else str(value) for key, value in vars(module).items()}
            for module in net.modules()
        ]
        assert x.grad is not None
        return [*state(net), attributes, x.detach().clone(), x.grad.clone(), x.requires_grad, y.clone()]

    before = everything()
    try:
        found = _ran(explanation, net, x, y)
    except StopHereError:
        demand(fails, "the model failed")
    else:
        demand(not fails, "an error of the model is swallowed")
        demand(not found.requires_grad, "the answer wants a gradient")
    demand(same(everything(), before), "model and images are not left as they were found")


def check_gradient_mode(explanation: HeatMap | Spectrum) -> None:
    """Whether the caller takes gradients does not matter."""
    model, x, y = trained()
    wanted = _ran(explanation, model, x[:4].clone(), y[:4].clone())
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = _ran(explanation, model, x[:4].clone(), y[:4].clone())
        demand(torch.equal(found, wanted), f"with gradients {'on' if grad else 'off'} the answer is another")
