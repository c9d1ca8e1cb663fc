"""The short way back through a first convolution gives what torch's own way gives, and leaves no trace."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from bascule.core.lean import lean_input_gradients
from bascule.core.pixel_blocks import input_gradient
from bascule.core.restore import evaluating, frozen, untouched
from bascule.core.rng import borrowed_global_stream, stream

SHORT = {"_ConvolutionBackward", "_NormalisationBackward"}
ROUNDING = 5e-6
"""Of float32, in shares of the greatest entry."""


class StopHereError(Exception):
    pass


def normal(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size, generator=stream(0, "normal"), dtype=torch.float64).to(dtype)


def make(channels: int = 1, outer: int = 16, kernel: int = 5, stride: int = 1, **settings) -> nn.Conv2d:
    """A convolution which is big enough, with `images`, to be worth the trouble."""
    with borrowed_global_stream(0, "conv"):
        conv = nn.Conv2d(channels, outer, kernel, stride, **settings)
    return conv.requires_grad_(False).to(memory_format=torch.channels_last)


def normalised(batch_norm: type[nn.Module] = nn.BatchNorm2d, **settings) -> nn.Module:
    """A batch norm in eval mode, after a convolution that takes the ordinary way."""
    first = make(outer=32, kernel=1)
    norm = batch_norm(32, **settings)
    for number, (_, value) in enumerate(sorted(norm.state_dict().items())):
        if value.is_floating_point():
            value.copy_(0.5 + torch.rand(32, generator=stream(number, "norm")))
    return nn.Sequential(first, norm).eval().requires_grad_(False)


def images(channels: int = 1, batch: int = 16, side: int = 28) -> Tensor:
    return torch.rand(batch, channels, side, side, generator=stream(0, "images"))


def lean(model: nn.Module):
    return lean_input_gradients(list(model.modules()))


def takes_the_short_way(model: nn.Module, x: Tensor) -> bool:
    """Whether the graph behind the answer to `x` holds a node of our own."""
    seen, waiting = set(), [model(x.clone().requires_grad_(True)).grad_fn]
    while waiting:
        node = waiting.pop()
        if type(node).__name__ in SHORT:
            return True  # torch 2.6 leads no further from here
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return False


def close(found: Tensor, expected: Tensor, tolerance: float = ROUNDING) -> bool:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return float((found - expected).detach().abs().max()) <= tolerance * max(1e-3, float(expected.detach().abs().max()))


SHAPES = [
    (channels, kernel, stride, padding, size)
    for channels, kernel, stride, padding in product(
        (1, 2, 3, 4), ((3, 3), (4, 4), (5, 2), (1, 7)), ((1, 1), (2, 2), (3, 1), (4, 5)), ((0, 0), (1, 2), (4, 3))
    )
    for size in ((9, 12), (13, 10), (8, 8))
]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_gradient_of_many_shapes(channels: int) -> None:
    """In float64, against torch: strides that leave pixels over, padding beyond the kernel, sides of any rest."""
    for _, kernel, stride, padding, size in (shape for shape in SHAPES if shape[0] == channels):
        x = normal(2, channels, *size, dtype=torch.float64).requires_grad_(True)
        weight = normal(3, channels, *kernel, dtype=torch.float64)
        answer = F.conv2d(x, weight, None, stride, padding)
        weights = normal(*answer.shape, dtype=torch.float64)
        (expected,) = torch.autograd.grad(answer, x, weights)
        found = input_gradient(weights, weight, size, stride=stride, padding=padding)
        assert close(found, expected, 1e-13), (kernel, stride, padding, size)


def test_the_gradient_worked_out_by_hand() -> None:
    """Pixel (0, 0) lies under the kernel's middle for the first answer, and under its first row for no other."""
    weight = torch.arange(9.0).reshape(1, 1, 3, 3)
    only = torch.zeros(1, 1, 5, 5)
    only[0, 0, 2, 3] = 2.0
    found = input_gradient(only, weight, (5, 5), stride=(1, 1), padding=(1, 1))
    expected = torch.zeros(5, 5)
    expected[1:4, 2:5] = 2 * weight[0, 0]
    assert torch.equal(found[0, 0], expected)


CONVOLUTIONS = [
    {},
    {"padding": 2},
    {"padding": "same", "bias": False},
    {"padding": "valid"},
    {"channels": 3, "kernel": (3, 6), "padding": (1, 2)},
    {"channels": 3, "kernel": 7, "stride": 2, "padding": 3},
    {"channels": 2, "outer": 64, "kernel": 11, "stride": 4, "padding": 2},
    {"channels": 4, "outer": 64, "kernel": 4, "stride": 4, "bias": False},
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("settings", CONVOLUTIONS)
def test_same_answers_and_gradients_to_rounding(settings, layout: torch.memory_format) -> None:
    conv = make(**settings).to(memory_format=layout)
    x = images(conv.in_channels).contiguous(memory_format=layout).requires_grad_(True)
    expected = conv(x)
    weights = normal(*expected.shape)
    (gradient,) = torch.autograd.grad(expected, x, weights)
    with lean(conv):
        found = conv(x)
        assert torch.equal(found, expected)
        assert close(torch.autograd.grad(found, x, weights)[0], gradient)


@pytest.mark.parametrize("settings", CONVOLUTIONS)
def test_it_is_the_short_way_that_was_tried(settings) -> None:
    conv = make(**settings)
    assert not takes_the_short_way(conv, images(conv.in_channels))
    with lean(conv):
        assert takes_the_short_way(conv, images(conv.in_channels))


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.requires_grad_(True)
    return torch.autograd.grad(model(x).square().sum(), x)[0]


def second(model: nn.Module, x: Tensor) -> Tensor:
    x = x.requires_grad_(True)
    (first,) = torch.autograd.grad(model(x).pow(3).sum(), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)[0]


def several(model: nn.Module, x: Tensor) -> Tensor:
    answer = model(x.requires_grad_(True))
    return torch.autograd.grad(answer, x, normal(3, *answer.shape), is_grads_batched=True)[0]


def forwards(model: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(model(forward_ad.make_dual(x.requires_grad_(True), x.detach().cos()))).tangent


def forwards_by_weights(model: nn.Module, x: Tensor) -> Tensor:
    x = x.requires_grad_(True)

    state = dict(model.named_parameters())
    tangents = {name: value.cos() for name, value in state.items()}
    return torch.func.jvp(lambda state: torch.func.functional_call(model, state, (x,)), (state,), (tangents,))[1]


def by_function(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.grad(lambda x: model(x).square().sum())(x)


def by_example(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(lambda x: model(x.expand(16, -1, -1, -1)).square().sum()))(x[:2])


def hessian(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.hessian(lambda scale: model(scale * x).square().sum())(torch.tensor(1.0))


def checkpointed(model: nn.Module, x: Tensor) -> Tensor:
    return gradient(lambda x: checkpoint(model, x, use_reentrant=False), x)


def in_parallel(model: nn.Module, x: Tensor) -> Tensor:
    return gradient(nn.DataParallel(model), x)


def mixed_forth(model: nn.Module, x: Tensor) -> Tensor:
    x = x.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = model(x)
    assert answer.dtype == torch.bfloat16
    return torch.autograd.grad(answer.float().square().sum(), x)[0]


def mixed_back(model: nn.Module, x: Tensor) -> Tensor:
    answer = model(x.requires_grad_(True)).square().sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.autograd.grad(answer, x)[0]


def narrow(model: nn.Module, x: Tensor) -> Tensor:
    return gradient(copy.deepcopy(model).bfloat16(), x.bfloat16())


USES: dict[Callable[[nn.Module, Tensor], Tensor], float] = {
    gradient: ROUNDING,
    second: ROUNDING,
    several: ROUNDING,
    forwards: ROUNDING,
    forwards_by_weights: ROUNDING,
    by_function: ROUNDING,
    by_example: ROUNDING,
    hessian: ROUNDING,
    checkpointed: ROUNDING,
    in_parallel: ROUNDING,
    mixed_forth: 2**-7,
    mixed_back: ROUNDING,
    narrow: 2**-7,
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, of its forward derivatives
@pytest.mark.parametrize("factory", [make, normalised])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_every_use_of_a_graph(use, factory) -> None:
    model = factory()
    expected = use(model, images())
    with lean(model):
        assert close(use(model, images()), expected, USES[use])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"eps": 0.1}])
def test_batch_norm_in_eval_mode(settings, layout: torch.memory_format) -> None:
    model, x = normalised(**settings).to(memory_format=layout), images().requires_grad_(True)
    expected = model(x)
    weights = normal(*expected.shape)
    (gradient,) = torch.autograd.grad(expected, x, weights)
    assert not takes_the_short_way(model, images())
    with lean(model):
        assert takes_the_short_way(model, images())
        found = model(x)
        assert torch.equal(found, expected)
        assert close(torch.autograd.grad(found, x, weights)[0], gradient)


@pytest.mark.parametrize("flatten", [0, 1])
def test_batch_norm_of_other_dimensions(flatten: int) -> None:
    kind = (nn.BatchNorm3d, nn.BatchNorm1d)[flatten]
    norm = normalised(batch_norm=kind)[1]
    x = normal(16, 32, *((784,) if flatten else (4, 14, 14)))
    expected = gradient(norm, x)
    with lean(norm):
        assert takes_the_short_way(norm, x)
        assert close(gradient(norm, x), expected)
        with pytest.raises(ValueError, match="expected"):
            norm(normal(16, 32, 28, 28).requires_grad_(True))


def test_batch_norm_by_statistics_of_the_batch_goes_the_ordinary_way() -> None:
    for model in (normalised().train(), normalised(track_running_stats=False)):
        with lean(model):
            assert not takes_the_short_way(model, images())
    model = normalised()
    model[1].weight.requires_grad_(True)
    with lean(model):
        assert not takes_the_short_way(model, images())


def test_a_gradient_that_the_weights_want_goes_the_ordinary_way() -> None:
    for wanting in ("weight", "bias"):
        conv = make()
        conv.get_parameter(wanting).requires_grad_(True)
        with lean(conv):
            assert not takes_the_short_way(conv, images())


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": 5},
        {"channels": 2, "groups": 2},
        {"dilation": 2},
        {"padding": 2, "padding_mode": "circular"},
        {"kernel": 4, "padding": "same"},
        {"kernel": 3},
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning")
def test_convolutions_it_does_not_know_go_the_ordinary_way(settings) -> None:
    conv = make(**settings)
    expected = gradient(conv, images(conv.in_channels))
    with lean(conv):
        assert not takes_the_short_way(conv, images(conv.in_channels))
        assert torch.equal(gradient(conv, images(conv.in_channels)), expected)


def test_little_work_goes_the_ordinary_way() -> None:
    conv = make()
    with lean(conv):
        assert takes_the_short_way(conv, images(batch=16))
        assert not takes_the_short_way(conv, images(batch=1))
        assert not takes_the_short_way(conv.double(), images(batch=16).double())


def test_what_torch_refuses_is_refused_in_its_words() -> None:
    conv, words = make(), []
    for around in (lambda _: nullcontext(), lean):
        for wrong in (images(3), images(side=3), images()[:, :, 0], images().double()):
            with around(conv), pytest.raises(RuntimeError) as error:
                conv(wrong.requires_grad_(True))
            words.append(str(error.value))
    assert words[:4] == words[4:]


class Own(nn.Conv2d):
    """Somebody's convolution with standardised weights."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def own() -> nn.Module:
    return Own(1, 16, 5)


def patched() -> nn.Module:
    conv = make()
    conv.forward = lambda x: 2 * nn.Conv2d.forward(conv, x)
    return conv


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(make())


def compiled() -> nn.Module:
    conv = make()
    conv.compile(backend="eager")
    return conv


@pytest.mark.parametrize("factory", [own, patched, scripted, compiled])
def test_convolutions_of_another_kind_are_left_alone(factory) -> None:
    model = factory()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = dict(vars(model))
    with lean(model):
        assert vars(model) == before
        assert not takes_the_short_way(model, images())


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_are_computed(wrap) -> None:
    """In train mode a spectral norm goes on at each look at the weight: it must be looked at once."""
    gradients = []
    for around in (lambda _: nullcontext(), lean):
        with borrowed_global_stream(0, "norm"):
            conv = wrap(make()).requires_grad_(False)
        with around(conv):
            gradients += [gradient(conv, images()), gradient(conv, images())]
    assert close(gradients[2], gradients[0])
    assert close(gradients[3], gradients[1])


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_a_model_is_left_as_it_was(fails: bool) -> None:
    model = nn.Sequential(make(), nn.ReLU(), nn.Sequential(make(16, 4), make(4, 16)))
    before = [dict(vars(module)) for module in model.modules()]

    def use() -> None:
        with lean(model), lean(model):
            gradient(model, images())
            if fails:
                raise StopHereError

    with pytest.raises(StopHereError) if fails else nullcontext():
        use()
    assert [dict(vars(module)) for module in model.modules()] == before
    assert not takes_the_short_way(model, images())


def test_a_forward_that_somebody_sets_meanwhile_is_kept() -> None:
    conv = make()
    with lean(conv):
        conv.forward = theirs = lambda x: x
    assert conv.forward is theirs


@pytest.mark.parametrize("inplace", [False, True])
def test_hooks_see_what_they_saw(inplace: bool) -> None:
    model = nn.Sequential(make(), nn.ReLU(inplace=inplace), nn.Flatten(), nn.LazyLinear(3))
    with borrowed_global_stream(0, "linear"):
        model(images())
    model.requires_grad_(False)
    seen: list[list[Tensor]] = []
    model[0].register_forward_pre_hook(lambda _, args: seen[-1].append(args[0].detach().clone()))
    model[0].register_forward_hook(lambda _, args, answer: seen[-1].append(answer.detach().clone()))
    if not inplace:  # which torch forbids together
        model[0].register_full_backward_hook(lambda _, by_input, by_answer: seen[-1].extend((*by_input, *by_answer)))
    for around in (nullcontext(), lean(model)):
        with around:
            seen.append([])
            seen[-1].append(gradient(model, images()))
    assert len(seen[0]) == (3 if inplace else 5)
    assert all(close(found, expected) for expected, found in zip(*seen, strict=True))


def test_copies_made_inside_compute_by_themselves() -> None:
    conv, kept = make(), io.BytesIO()
    with lean(conv):
        copied = copy.deepcopy(conv)
        torch.save(conv, kept)
    kept.seek(0)
    loaded = torch.load(kept, weights_only=False)
    conv.weight.zero_()
    for other in (copied, loaded):
        assert not torch.equal(other(images()), conv(images()))
        other.requires_grad_(True)
        other(images()).sum().backward()
        assert other.weight.grad is not None


def test_tracing_inside_gives_the_network() -> None:
    model, x = nn.Sequential(make(), nn.ReLU()), images().requires_grad_(True)
    with lean(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(model, x)
        graph = torch.fx.symbolic_trace(model)
    assert "Python" not in str(traced.inlined_graph)
    assert torch.equal(traced(x), model(x))
    assert torch.equal(graph(x), model(x))


@pytest.mark.parametrize("manager", [frozen, untouched, lambda model: evaluating(model, freeze=True)])
def test_frozen_models_take_the_short_way(manager) -> None:
    model = nn.Sequential(make(), nn.ReLU()).requires_grad_(True)
    with manager(model):
        assert takes_the_short_way(model, images())
    assert not takes_the_short_way(model, images())
    with evaluating(model):
        assert not takes_the_short_way(model, images())
