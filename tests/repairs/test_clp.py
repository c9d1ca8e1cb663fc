"""Channel Lipschitz pruning by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.clp import Clp, lipschitz_bounds
from bascule.repairs.layers import Layer, layers_of
from bascule.repairs.run import run_repair


def test_bounds_of_a_convolution_with_norm() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.01)
    norm.weight.data.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
    norm.running_var = torch.tensor([1.0, 4.0, 0.25, 9.0])
    kernels = conv.weight.detach().double().numpy().reshape(4, 3, 9)
    wanted = [np.linalg.svd(k, compute_uv=False)[0] for k in kernels]
    found = lipschitz_bounds(Layer("", conv)).double().numpy()
    assert found == pytest.approx(wanted, rel=1e-5)
    factors = [1 / 1.01**0.5, 2 / 4.01**0.5, 0.5 / 0.26**0.5, 0]
    found = lipschitz_bounds(Layer("", conv, norm, "")).double().numpy()
    assert found == pytest.approx(np.multiply(wanted, factors), rel=1e-5)


def test_bounds_of_a_linear_layer_are_lengths() -> None:
    layer = nn.Linear(2, 3)
    layer.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]))
    assert lipschitz_bounds(Layer("", layer)).tolist() == pytest.approx([5, 1, 0])


def test_the_outlying_channel_is_silenced_and_no_other(plain: nn.Module, some: Images) -> None:
    with torch.no_grad():
        plain[5].weight[3] *= 100
    found = run_repair(plain, Clp(u=2.0), some, generator=stream(0, "r"))
    assert found.notes["silenced"] == 1
    weight = found.model.get_submodule("5").weight
    assert isinstance(weight, torch.Tensor)
    assert (weight.abs().sum(1) == 0).tolist() == [False] * 3 + [True] + [False] * 3
    assert found.model.get_submodule("5").bias[3] == 0  # type: ignore[index]
    others = [name for name in plain.state_dict() if not name.startswith("5")]
    assert all(torch.equal(found.model.state_dict()[name], plain.state_dict()[name]) for name in others)


def test_pixels_do_not_matter(plain: nn.Module, some: Images) -> None:
    first, second = (
        run_repair(plain, Clp(u=1.0), images, generator=stream(0, "r")) for images in (some, some.at(torch.tensor([3])))
    )
    assert first.notes == second.notes
    assert first.notes["silenced"] > 0
    assert not Clp.needs_images


def test_the_last_layer_keeps_all_its_rows(plain: nn.Module, some: Images) -> None:
    found = run_repair(plain, Clp(u=0.0), some, generator=stream(0, "r"))
    assert torch.equal(found.model.state_dict()["7.weight"], plain.state_dict()["7.weight"])
    for layer in layers_of(found.model, some.size)[:-1]:
        silent = (layer.module.weight.flatten(1) == 0).all(1)
        assert 0 < silent.sum() < len(silent)
