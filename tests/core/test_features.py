"""Features of any layer: hand-worked vectors, every kind of refusal, and no trace on the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import networks
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.features import features
from bascule.core.images import Images


def images(count: int = 7, side: int = 2) -> Images:
    pixels = torch.randint(256, (count, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Images(pixels=pixels, labels=torch.arange(count) % 3, ids=torch.arange(count) + 100, classes=("a", "b", "c"))


def net() -> nn.Sequential:
    """Doubles the pixels in place of a convolution, clips at 1 in place, then one linear layer."""
    conv = nn.Conv2d(1, 1, 1)
    nn.init.constant_(conv.weight, -2.0)
    nn.init.constant_(conv.bias, 1.0)
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.Dropout(0.9), nn.Flatten(), nn.Linear(4, 3)).train()


class Odd(nn.Module):
    """Layers that cannot be asked for features."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Identity()
        self.never = nn.Identity()
        self.pair = Pair()
        self.turned = Turned()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(x.flatten(1)))
        self.pair(x)
        self.turned(x)
        return self.head(input=x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.T


def trace(model: nn.Module) -> list[Any]:
    return [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), [p.requires_grad for p in m.parameters()])
        for m in model.modules()
    ]


def test_default_is_the_input_of_the_last_linear_layer() -> None:
    given = images()
    found = features(net(), given, batch_size=3)
    x = given.batch(torch.arange(7)).flatten(1)
    assert (found.layer, found.of_input, found.width, len(found)) == ("4", True, 4, 7)
    assert torch.allclose(found.matrix(), (1 - 2 * x).relu())  # dropout is off
    assert [len(part) for part in found.chunks()] == [3, 3, 1]


def test_a_named_layer_is_taken_before_the_next_one_changes_it_in_place() -> None:
    given = images()
    found = features(net(), given, layer="0")
    assert found.shape == (1, 2, 2)
    assert torch.allclose(found.matrix(), 1 - 2 * given.batch(torch.arange(7)).flatten(1))
    assert found.matrix().min() < 0


def test_layers_inside_a_network_have_their_dotted_names() -> None:
    model = catalog.build("models", "cifar-paper").initialised((1, 8, 8), 3, seed=0)
    assert features(model, images(side=8), layer="group3.1").shape == (64, 2, 2)
    assert features(model, images(side=8), layer="group3").shape == (64, 2, 2)
    assert features(model, images(side=8)).shape == (64,)


def test_channels_last_maps_are_flattened_in_the_usual_order() -> None:
    model = catalog.build("models", {"name": "digits-cnn", "width": 2}).initialised((1, 8, 8), 3, seed=0)
    plain = features(model, images(side=8), layer="2").matrix()
    last = features(model.to(memory_format=torch.channels_last), images(side=8), layer="2").matrix()
    assert torch.allclose(plain, last, atol=1e-6)


@pytest.mark.parametrize("held", [False, True])
def test_subsets_and_classes(held: bool) -> None:
    found = features(net(), images(), batch_size=2)
    whole = found.matrix()
    found = found.in_memory() if held else found
    index = torch.tensor([5, 0, 3])
    assert torch.equal(found.at(index).matrix(), whole[index])
    assert found.at(index).images.ids.tolist() == [105, 100, 103]
    for label, places, part in found.by_class():
        assert places.tolist() == list(range(label, 7, 3))
        assert torch.equal(part.matrix(), whole[places])
        assert torch.equal(torch.cat(list(part.chunks())), whole[places])


def test_features_are_held_only_up_to_the_limit() -> None:
    calls = []
    model = net()
    model.register_forward_hook(lambda *_: calls.append(1))
    found = features(model, images(), batch_size=10)
    size = 4 * 7 * 4
    calls.clear()
    assert found.in_memory(size - 1).rows is None
    assert calls == []
    held = found.in_memory(size)
    assert len(calls) == 1
    assert torch.equal(held.matrix(), torch.cat(list(held.chunks())))
    assert len(calls) == 1
    found.matrix()
    assert len(calls) == 2


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    model = catalog.build("models", "cifar-paper").initialised((1, 8, 8), 3, seed=0)
    with pytest.raises(RequestError, match=r"no layer 'group3\.7'.*group3\.[01234]"):
        features(model, images(side=8), layer="group3.7")
    with pytest.raises(RequestError, match=r"no layer 'unit_3_1'\. The nearest of its"):
        features(model, images(side=8), layer="unit_3_1")


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        ("twice", "'twice' runs 2 times"),
        ("never", "'never' does not run"),
        ("pair", "'pair' gives a tuple, not a tensor"),
        ("turned", "not a row for each"),
    ],
)
def test_layers_that_give_no_row_per_image_are_refused(layer: str, complaint: str) -> None:
    model = Odd()
    before = trace(model)
    with pytest.raises(RequestError, match=complaint):
        features(model, images(), layer=layer)
    assert trace(model) == before


@pytest.mark.parametrize("name", ["Attention", "Encoder", "Windows"])
def test_the_last_linear_layer_decides_alone_whatever_the_others_see(name: str) -> None:
    model = getattr(networks, name)((1, 4, 4), 3)
    found = features(model, images(side=4))
    assert (found.layer, found.shape) == ("head", (16,))
    assert found.matrix().shape == (7, 16)


def test_a_linear_layer_called_by_keyword_is_seen() -> None:
    given = images()
    assert torch.equal(features(Odd(), given).matrix(), given.batch(torch.arange(7)).flatten(1))


def test_a_model_without_linear_layers_needs_a_name() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten())
    with pytest.raises(RequestError, match="name a layer"):
        features(model, images())
    assert features(model, images(), layer="1").width == 3


def test_values_that_are_not_finite_are_refused() -> None:
    model = net()
    nn.init.constant_(model[0].bias, torch.nan)
    with pytest.raises(RequestError, match="not finite"):
        features(model, images()).matrix()


def test_no_trace_after_use_after_stopping_in_the_middle_and_after_an_error() -> None:
    model = net()
    model[1].eval()
    model[0].requires_grad_(False)
    before = trace(model)
    found = features(model, images(), layer="0", batch_size=2)
    assert trace(model) == before
    walk = found.chunks()
    next(walk)
    assert trace(model) == before
    found.matrix()
    assert trace(model) == before
    assert not found.matrix().requires_grad
    nn.init.constant_(model[4].weight, 0.0)
    model[4] = nn.Linear(5, 3)  # fails in the pass itself
    before = trace(model)
    with pytest.raises(RuntimeError):
        found.matrix()
    assert trace(model) == before


def test_other_images_have_the_same_vectors_and_a_gradient() -> None:
    """Of the net above: the features are 1 - 2 x, cut at 0; the slope of their sum is -2 where they are not cut."""
    model, known = net(), images()
    before = trace(model)
    found = features(model, known)
    x = torch.tensor([[[[0.1, 0.4], [0.6, 0.9]]]], requires_grad=True)
    vectors = found.of(x)
    assert torch.allclose(vectors, torch.tensor([[0.8, 0.2, 0.0, 0.0]]))
    (slope,) = torch.autograd.grad(vectors.sum(), x)
    assert slope.flatten().tolist() == [-2, -2, 0, 0]
    assert torch.equal(found.of(known.batch(torch.arange(7))).detach(), found.matrix())
    assert not found.matrix().requires_grad
    assert trace(model) == before
