"""Files that the real libraries write are read back, and the network answers as theirs."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bascule.core.catalog import build
from bascule.core.rng import borrowed_global_stream, stream
from bascule.models.weights import load_weights

layouts = pytest.importorskip("foreign.layouts", reason="needs timm, torchvision and Lightning: make foreign")
pytestmark = pytest.mark.filterwarnings("default")  # the libraries' own
LAYOUTS = layouts.LAYOUTS
NETWORKS = ("torchvision:shufflenet_v2_x0_5", "timm:test_resnet")
SIZE = (3, layouts.SIDE, layouts.SIDE)
NOTED = {
    "swa-beside-the-last", "averaged-beside-the-last-by-its-counter", "ema", "ema-of-parallel", "ema-of-compiled",
    "basicsr", "timm-ema-v3-beside-the-last", "torchvision-references", "timm-best-with-ema",
    "lightning-averaged", "self-distilled",
}  # fmt: skip
"""Layouts with several sets of weights: which is taken is said."""
EACH = [(one, name) for one in LAYOUTS for name in NETWORKS if "timm" in name or one not in layouts.TIMM_ONLY]


def network(name: str, seed: int = 0) -> Any:
    return build("models", name).initialised(SIZE, 10, seed=seed).eval()


def theirs(name: str) -> nn.Module:
    """The library's own network, with statistics and gains that are not those of a fresh one."""
    net: nn.Module = network(name).net
    with torch.no_grad():
        for seed, value in enumerate(net.state_dict().values()):
            if value.is_floating_point() and value.ndim == 1:
                value.add_(0.1 * torch.rand(value.shape, generator=stream(seed, "values")))
    return net


def test_there_are_enough() -> None:
    assert len(LAYOUTS) >= 40
    assert LAYOUTS.keys() >= NOTED | layouts.TIMM_ONLY


@pytest.mark.parametrize(("layout", "name"), EACH)
def test_a_file_of_the_library_is_read(layout: str, name: str, tmp_path: Path) -> None:
    net = theirs(name)
    fresh = copy.deepcopy(net.state_dict())
    with borrowed_global_stream(0, "layout"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = LAYOUTS[layout](net, tmp_path)
    found = network(name, seed=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load_weights(found, str(file))
    for key, value in net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(found.net.state_dict()[key], value), key
            assert torch.allclose(fresh[key], value) or layout == "lightning-stochastic-averages", key
    x = torch.rand(2, *SIZE, generator=stream(0, "images"))
    assert torch.equal(found.net(x), net.eval()(x))
    assert [str(one.message).count("taken are the weights under") for one in said] == [1] * (layout in NOTED)
