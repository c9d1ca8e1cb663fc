"""What cannot be followed is refused with its place; what can be seen only by running the model is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.certifiers.bounds import bound, bound_for_training
from bascule.certifiers.interval import Interval
from bascule.certifiers.run import run_certifier
from bascule.core.errors import RequestError
from bascule.core.rng import stream

X = torch.rand(3, 2, 4, 4, generator=stream(0, "images"))


class Net(nn.Module):
    """A part inside a model, in front of a linear layer."""

    def __init__(self, part: Callable[[Any], Any]) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Identity(), Part(part))
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Part(nn.Module):
    def __init__(self, part: Callable[[Any], Any]) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Any:
        return self.part(x)


def refused(model: nn.Module) -> str:
    with pytest.raises(RequestError) as caught:
        bound(model.eval(), X, eps=0.1)
    return str(caught.value)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (nn.Sigmoid(), "cannot follow the layer Sigmoid at 'features.1.part': no bound is known for it. Supported: "),
        (nn.GroupNorm(1, 2), "the layer GroupNorm at 'features.1.part': no bound is known"),
        (nn.LeakyReLU(-0.1), "the layer LeakyReLU at 'features.1.part': its slope is -0.1, allowed are 0 to 1"),
        (nn.Conv3d(2, 2, 1, padding=1), "the layer Conv3d at"),
        (torch.sigmoid, "the call of sigmoid at 'features.1': no bound is known"),
        (lambda x: x.exp(), "the method .exp() at 'features.1': no bound is known"),
        (lambda x: x * x, "the call of mul at 'features.1': a product of two values that both depend on the image"),
        (lambda x: 1 / (x + 1), "the call of truediv at 'features.1': the divisor depends on the image"),
        (lambda x: x.mean(), "the method .mean() at 'features.1': it mixes images"),
        (lambda x: x.sum(0, keepdim=True).expand(3, -1, -1, -1), "the method .sum() at 'features.1': it mixes images"),
        (lambda x: x[:1] + x, "the call of getitem at 'features.1': the index (slice(None, 1, None),)"),
        (lambda x: x.view(6, 16), "the method .view() at 'features.1': it mixes images (from (3, 2, 4, 4) to (6, 16))"),
        (lambda x: x.permute(1, 0, 2, 3), "the images must stay the first dimension"),
        (lambda x: torch.cat([x, x]), "the call of cat at 'features.1': it mixes images"),
        (lambda x: F.conv2d(x, x), "the weight depends on the image"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)), "it pads the dimension of the images"),
        (lambda x: x + torch.rand(3, 1, 1, 1), "a constant of shape (3, 1, 1, 1) for (3, 2, 4, 4)"),
        (lambda x: x.mean(dim=1, dtype=torch.float64), "the method .mean() at 'features.1': with these arguments"),
        (lambda x: x.mT, "the attribute 'mT'"),
        (lambda x: F.batch_norm(x, None, None, training=True), "with running statistics only"),
        (nn.BatchNorm2d(2, track_running_stats=False), "an image's answer depends on other images"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], "no bound is known"),
        (lambda x: x if x.sum() > 0 else -x, "the forward pass of Part at 'features.1' (test_graph.py, line "),
        (lambda x: x if x.sum() > 0 else -x, "It must make the same calls for every image"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_followed_is_refused(part: Any, said: str) -> None:
    assert said in refused(Net(part))


def test_the_refusal_names_what_is_supported() -> None:
    said = refused(nn.Sequential(nn.Flatten(), nn.Softmax(1)))
    assert said.startswith("certified bounds cannot follow the layer Softmax at '1': ")
    for word in ("Conv2d", "BatchNorm2d", "MaxPool2d", "+ and - of branches", "relu", "pad", "view"):
        assert word in said


def test_a_call_in_the_models_own_forward_says_so() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).tanh()

    assert "the method .tanh() in the model's own forward pass: " in refused(Model())


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (nn.Conv2d(2, 3, 1), "a tensor of shape (3, 3, 4, 4)"),
        (nn.Sequential(Part(lambda x: (x.flatten(1), x))), "tuple"),
        (Part(lambda x: {"logits": x.flatten(1)}), "dict"),
        (Part(lambda x: torch.zeros(3, 2)), "Tensor"),
    ],
    ids=["images", "tuple", "dict", "constant"],
)
def test_the_answer_must_be_logits(model: nn.Module, given: str) -> None:
    assert refused(model) == f"certified bounds need a model that answers with logits, images x classes; got {given}"


def test_a_layer_with_hooks_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    model[1].register_forward_hook(lambda module, args, out: out + 1)
    assert "the layer Linear at '1': it has forward hooks" in refused(model)


def test_what_is_computed_from_buffers_is_computed_anew() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor([2.0]))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) * (self.scale * 3)

    model = Model()
    for value in (2.0, 5.0):
        model.scale.fill_(value)
        torch.testing.assert_close(bound_for_training(model, X, eps=0.0).logits, 3 * value * X.flatten(1))


def test_parametrised_weights_are_followed() -> None:
    model = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(32, 3))).eval()
    torch.testing.assert_close(bound(model, X, eps=0.0).answers.lower, model(X))


def test_a_single_layer_and_a_compiled_model_are_models() -> None:
    flat = X.reshape(3, 32)
    single = nn.Linear(32, 3)
    torch.testing.assert_close(bound(single, flat, eps=0.0).answers.lower, single(flat))
    model = nn.Sequential(nn.Flatten(), single)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(bound(compiled, X, eps=0.0).answers.lower, model(X))


def test_computations_off_the_unused_path_do_not_matter() -> None:
    model = Part(lambda x: (x.flatten(1), x.relu().flatten(1).relu())[0])
    found = bound(model, X, eps=0.1)
    torch.testing.assert_close(found.answers.lower, (X - 0.1).clamp(0, 1).flatten(1))


def test_an_overwritten_value_is_noticed() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1) - 0.5
            return self.relu(x) + x  # twice the positive part, since x was overwritten

    model = Model()
    with pytest.raises(RequestError, match=r"works in place on a value that is used again"):
        run_certifier(model, Interval(eps=0.1), X, model(X).argmax(1), generator=stream(0, "g"))
