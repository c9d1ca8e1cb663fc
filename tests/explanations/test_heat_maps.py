"""Heat maps: worked by hand on linear nets, and equal to captum's."""

from __future__ import annotations

import importlib
from typing import Any

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.restore import untouched
from bascule.core.rng import borrowed_global_stream, stream
from bascule.explanations.contract import HeatMap
from bascule.explanations.grad_cam import GradCam
from bascule.explanations.gradient import input_gradient
from bascule.explanations.integrated_gradients import IntegratedGradients
from bascule.explanations.run import run_heat_map
from bascule.explanations.saliency import Saliency
from bascule.explanations.smoothgrad import Smoothgrad

ROWS = torch.tensor([[[[1.0, -2.0], [0.0, 4.0]], [[0.5, 1.0], [-3.0, 0.0]]], [[[0.0, 1.0], [2.0, -1.0]]] * 2])
"""Weights of the two logits, 2 labels x 2 channels x 2 x 2."""


def linear() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    with torch.no_grad():
        net[1].weight.copy_(ROWS.flatten(1))
        net[1].bias.copy_(torch.tensor([0.25, -0.5]))
    return net.eval()


def heat(heat_map: HeatMap, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return run_heat_map(model, heat_map, x, y, generator=stream(0, "heat"), batch_size=50)


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 2, 2, 2, generator=stream(0, "images"))


BOTH = torch.tensor([0, 1])

# --- by hand ---------------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_linear_nets_logit_is_its_row() -> None:
    assert torch.equal(input_gradient(linear(), images(), BOTH, score="logit"), ROWS)
    found = heat(Saliency(score="logit", clip=None), linear(), images(), BOTH)
    assert found.tolist() == [[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [2.0, 1.0]]]
    found = heat(Saliency(score="logit", clip=None, channels="sum"), linear(), images(), BOTH)
    assert found.tolist() == [[[1.5, 3.0], [3.0, 4.0]], [[0.0, 2.0], [4.0, 2.0]]]
    assert torch.allclose(heat(Smoothgrad(samples=3), linear(), images(), BOTH), found)


def test_the_gradient_of_the_loss_by_hand() -> None:
    x = images()
    p = linear()(x).softmax(1)
    # d CE / d x = (p0 - [y = 0]) row0 + (p1 - [y = 1]) row1, and with two labels p0 - 1 = -p1.
    difference = ROWS[0] - ROWS[1]
    wanted = torch.stack([-p[0, 1] * difference, p[1, 0] * difference])
    assert torch.allclose(input_gradient(linear(), x, BOTH, score="loss"), wanted, atol=1e-6)


def test_clipping_is_at_standard_deviations_of_all_entries() -> None:
    entries = ROWS[0].flatten()
    assert entries.std(correction=0).item() == pytest.approx((31.25 / 8 - (1.5 / 8) ** 2) ** 0.5)
    limit = 1.5 * entries.std(correction=0).item()
    assert 2.0 < limit < 3.0
    found = heat(Saliency(score="logit", clip=1.5), linear(), images(1), BOTH[:1])
    assert found.flatten().tolist() == pytest.approx([1.0, 2.0, limit, limit])


def test_figure_three_as_published() -> None:
    # "s = 3 * std(g) over all entries; clip g to [-s, s]; show (1 + g / s) / 2".
    with borrowed_global_stream(0, "net"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    x, y = torch.rand(3, 3, 8, 8, generator=stream(0, "x")), torch.tensor([0, 3, 4])
    found = heat(Saliency(), net, x, y)
    for i in range(3):
        single = x[i : i + 1].clone().requires_grad_(True)
        F.cross_entropy(net(single), y[i : i + 1]).backward()
        g = single.grad[0].numpy()  # type: ignore[index]
        s = 3 * g.std()
        wanted = (1 + g.clip(-s, s) / s) / 2
        assert torch.allclose(found[i], torch.from_numpy(abs(2 * wanted - 1).max(0) * s), atol=1e-6)


def test_a_gradient_without_spread_is_kept() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0], [2.0]]).expand(2, 8))
    found = heat(Saliency(score="logit"), net, images(), BOTH)
    assert found[0].tolist() == [[0.0] * 2] * 2
    assert found[1].tolist() == [[2.0] * 2] * 2


def test_a_sure_model_has_a_gradient_too() -> None:
    # At logits 25 apart the label's probability is 1 in 32 bits, which would leave the other row alone.
    net = linear()
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([25.0, 0.0]))
    found = input_gradient(net, torch.zeros(1, 2, 2, 2), BOTH[:1], score="loss")
    assert found.flatten().tolist() == pytest.approx(
        (-(torch.e**-25) * (ROWS[0] - ROWS[1])).flatten().tolist(), rel=1e-4
    )
    shares = heat(Saliency(), net, torch.zeros(1, 2, 2, 2), BOTH[:1])
    assert (shares / shares.sum()).flatten().tolist() == pytest.approx([1 / 14, 3 / 14, 5 / 14, 5 / 14], rel=1e-4)


def test_integrated_gradients_of_a_linear_net() -> None:
    x = images()
    found = IntegratedGradients(baseline=0.5, steps=3).attributions(linear(), x, BOTH)
    assert torch.allclose(found, (x - 0.5) * ROWS, atol=1e-6)
    summed = heat(IntegratedGradients(baseline=0.5, steps=3), linear(), x, BOTH)
    assert torch.allclose(summed, ((x - 0.5) * ROWS).abs().sum(1), atol=1e-6)


@pytest.mark.parametrize("score", ["logit", "loss"])
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_integrated_gradients_are_complete(score: Any, baseline: float, trained: Any) -> None:
    model, x, y = trained.model, trained.x[:20], (trained.y[:20] + 1) % 10

    def value(x: Tensor) -> Tensor:
        if score == "loss":
            return F.cross_entropy(model(x), y, reduction="none")
        return model(x)[torch.arange(len(x)), y]

    with untouched(model):
        found = IntegratedGradients(score=score, baseline=baseline, steps=300).attributions(model, x, y)
        wanted = (value(x) - value(torch.full_like(x, baseline))).detach()
    assert wanted.abs().mean() > 1
    assert torch.allclose(found.flatten(1).sum(1), wanted, atol=0.05)
    summed = heat(IntegratedGradients(score=score, baseline=baseline, steps=300), model, x, y)
    assert torch.allclose(summed, found.abs().sum(1), atol=1e-4)


def test_grad_cam_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
        net[3].weight.copy_(torch.tensor([[4.0, 0, 0, 0, 1, 1, 1, 1], [-1.0] * 8]))
    x = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(1, 1, 2, 2)
    # Channel 0 is x, all active: its mean gradient is 4 / 4. Channel 1 is -x, cut off: no gradient.
    assert heat(GradCam(), net, x, BOTH[:1]).flatten().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert heat(GradCam(layer="0"), net, x, BOTH[:1]).any()
    # The other label is only ever lowered: no heat.
    assert not heat(GradCam(), net, x, BOTH[1:]).any()


def test_grad_cam_is_scaled_up_to_the_image(trained: Any) -> None:
    found = heat(GradCam(), trained.model, trained.x[:3], trained.y[:3])  # its last convolution is 4 x 4
    with untouched(trained.model):
        method = captum.attr.LayerGradCam(trained.model, trained.model[2])
        small = method.attribute(trained.x[:3].clone().requires_grad_(True), trained.y[:3], relu_attributions=True)
    assert small.shape == (3, 1, 4, 4)
    wanted = F.interpolate(small.detach(), (8, 8), mode="bilinear", align_corners=False)
    assert torch.allclose(found, wanted[:, 0])
    assert found.any()


# --- captum's --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["logit", "loss"])
def test_saliency_is_captums(score: Any, trained: Any) -> None:
    model, x, y = trained.model, trained.x[:30], (trained.y[:30] + 3) % 10
    forward = model if score == "logit" else lambda x: F.cross_entropy(model(x), y, reduction="none")
    with untouched(model):
        inputs = x.clone().requires_grad_(True)
        wanted = captum.attr.Saliency(forward).attribute(inputs, target=y if score == "logit" else None)
    found = heat(Saliency(score=score, clip=None), model, x, y)
    assert torch.allclose(found, wanted.amax(1), rtol=1e-4, atol=1e-6)
    assert found.any()


def test_smoothgrad_is_captums_with_the_same_noise(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = trained.model, trained.x[:4], trained.y[:4]
    found = heat(Smoothgrad(samples=5, sigma=0.2), model, x, y)
    generator = stream(0, "heat")
    noise = torch.stack([torch.empty_like(x).normal_(std=0.2, generator=generator) for _ in range(5)])

    def drawn(mean: float, std: Tensor) -> Tensor:
        assert std.unique().tolist() == [pytest.approx(0.2)]
        return noise.transpose(0, 1).reshape(std.shape)  # captum repeats each image in place

    monkeypatch.setattr(torch, "normal", drawn)
    with untouched(model):
        tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
        wanted = tunnel.attribute(
            x.clone().requires_grad_(True), nt_type="smoothgrad", nt_samples=5, stdevs=0.2, target=y, abs=False
        )
    assert torch.allclose(found, wanted.abs().sum(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("heat_map", [IntegratedGradients(), GradCam()], ids=["integrated-gradients", "grad-cam"])
def test_without_captum_there_is_one_message(heat_map: HeatMap, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RequestError, match=r"needs the package captum.*pip install 'bascule\[explain\]'"):
        heat(heat_map, trained.model, trained.x[:1], trained.y[:1])
    for other in (Saliency(), Smoothgrad(samples=2)):
        assert heat(other, trained.model, trained.x[:1], trained.y[:1]).any()


# --- layers ----------------------------------------------------------------------------------------------------------


def test_an_unknown_layer_is_refused_with_the_nearest(trained: Any) -> None:
    model = nn.Sequential()
    model.add_module("features", nn.Conv2d(1, 2, 3))
    with pytest.raises(RequestError, match=r"^layer: unknown layer 'feature'. Did you mean 'features'\?"):
        heat(GradCam(layer="feature"), model, trained.x[:1], trained.y[:1])


def test_a_model_without_convolution_must_name_a_layer() -> None:
    with pytest.raises(RequestError, match=r"^layer: the model has no Conv2d; name a layer of it: 0, 1"):
        heat(GradCam(), linear(), images(), BOTH)
    with pytest.raises(RequestError, match=r"^layer: the output of '1' has 2 dimensions"):
        heat(GradCam(layer="1"), linear(), images(), BOTH)


# --- what is guaranteed ----------------------------------------------------------------------------------------------


class Scripted(HeatMap):
    """Heat as the test says."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.values(x)


def test_heat_that_is_not_finite_is_none() -> None:
    def values(x: Tensor) -> Tensor:
        found = torch.ones(len(x), 2, 2)
        found[1, 0, 0] = torch.nan
        found[2, 1, 1] = torch.inf
        return found

    found = heat(Scripted(values), linear(), images(4), torch.zeros(4, dtype=torch.int64))
    assert found.flatten(1).sum(1).tolist() == [4.0, 0.0, 0.0, 4.0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda x: -torch.ones(len(x), 2, 2), "below zero"),
        (lambda x: x, r"shape \(2, 2, 2, 2\) for \(2, 2, 2\)"),
        (lambda x: torch.ones(1, 2, 2), r"shape \(1, 2, 2\) for \(2, 2, 2\)"),
    ],
)
def test_what_is_no_heat_is_an_error(values: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        heat(Scripted(values), linear(), images(), BOTH)


def test_a_method_that_goes_backward_leaves_the_callers_images_alone() -> None:
    def values(x: Tensor) -> Tensor:
        x.requires_grad_(True)
        (x * x).sum().backward()
        assert x.grad is not None
        return x.grad.abs().sum(1)

    x = images().requires_grad_(True)
    found = heat(Scripted(values), linear(), x, BOTH)
    assert torch.allclose(found, 2 * x.detach().sum(1))
    assert x.grad is None


def test_batches_do_not_matter(trained: Any) -> None:
    for made in (Saliency(), IntegratedGradients(steps=5), GradCam()):
        whole, parts = (
            run_heat_map(
                trained.model, made, trained.x[:7], trained.y[:7], generator=stream(0, "heat"), batch_size=batch_size
            )
            for batch_size in (7, 3)
        )
        assert torch.allclose(whole, parts, rtol=1e-3, atol=1e-6)
