"""Grad-CAM looks at a layer that holds a picture, or asks for one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import networks
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.restore import untouched
from bascule.core.rng import borrowed_global_stream, stream
from bascule.explanations._picture import is_picture, last_picture, named_layer
from bascule.explanations.run import run_heat_map

SIZE = (1, 8, 8)
X = torch.rand(3, *SIZE, generator=stream(0, "images"))
Y = torch.tensor([0, 1, 2])


def make(name: str) -> nn.Module:
    with borrowed_global_stream(0, "net"):
        return getattr(networks, name)(SIZE, 3).eval()


@pytest.mark.parametrize(
    ("shape", "images", "expected"),
    [
        ((2, 16, 4, 4), (2, 3, 32, 32), True),
        ((2, 16, 4, 6), (2, 3, 32, 48), True),
        ((2, 16, 7, 10), (2, 3, 56, 84), True),  # rounded up or down
        ((2, 4, 4, 16), (2, 3, 32, 32), False),  # channels last
        ((2, 16, 1, 1), (2, 3, 32, 32), False),  # pooled
        ((2, 16, 16), (2, 3, 32, 32), False),  # tokens
        ((8, 16, 4, 4), (2, 3, 32, 32), False),  # windows
        (None, (2, 3, 32, 32), False),
    ],
)
def test_what_is_a_picture(shape, images, expected: bool) -> None:
    assert is_picture(shape, images) == expected


@pytest.mark.parametrize(
    ("name", "layer"), [("plain", "body.0"), ("HeadConvolution", "second"), ("Back", "front"), ("Shrunk", "first")]
)
def test_the_last_layer_with_a_picture_is_chosen(name: str, layer: str) -> None:
    model = make(name)
    with untouched(model):
        assert last_picture(model, X) is model.get_submodule(layer)
        assert named_layer(model, layer, X) is model.get_submodule(layer)


def test_strides_may_differ_between_rows_and_columns() -> None:
    """Maps of 8 x 2 for images of 8 x 8: a convolution's output is a picture by definition."""
    body = nn.Sequential(nn.Conv2d(1, 4, 3, (1, 4), padding=1), nn.BatchNorm2d(4), nn.ReLU())
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(64, 3)).eval()
    with untouched(model):
        assert last_picture(model, X) is body[0]
        assert named_layer(model, "0.2", X) is body[2]


@pytest.mark.parametrize("name", ["Attention", "Encoder", "Windows"])
def test_where_the_convolution_only_cuts_patches_a_layer_is_asked_for(name: str) -> None:
    with pytest.raises(RequestError, match=r"^layer: behind the model's last convolution .*\('patch'\).*name a layer"):
        run_heat_map(make(name), catalog.build("explain", "grad-cam"), X, Y, generator=stream(0, "h"), batch_size=3)


@pytest.mark.parametrize(
    ("name", "layer", "said"),
    [
        ("Windows", "norm", "the output of 'norm' is 4 x 4 x 16 for each image; a heat map needs channels x height"),
        ("Encoder", "block", "the output of 'block' has 3 dimensions, a heat map needs B x C x H x W"),
        ("HeadConvolution", "conv_head", "the output of 'conv_head' is 16 x 1 x 1 for each image"),
        ("Encoder", "block.dropout1.nothing", "unknown layer"),
    ],
)
def test_a_named_layer_without_a_picture_is_refused(name: str, layer: str, said: str) -> None:
    heat_map = catalog.build("explain", {"name": "grad-cam", "layer": layer})
    with pytest.raises(RequestError) as caught:
        run_heat_map(make(name), heat_map, X, Y, generator=stream(0, "h"), batch_size=3)
    assert said in str(caught.value)


@pytest.mark.parametrize("method", ["saliency", "smoothgrad", "integrated-gradients", "grad-cam"])
@pytest.mark.parametrize("name", ["detached", "outside", "inference", "rounded"])
def test_without_gradients_heat_is_refused(name: str, method: str) -> None:
    with pytest.raises(RequestError, match=f"{method} follows the gradient .* this model has none"):
        run_heat_map(make(name), catalog.build("explain", method), X, Y, generator=stream(0, "h"), batch_size=3)
