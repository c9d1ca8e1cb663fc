"""Batch norms folded into the convolutions before them: the same answers, and only where nothing else can see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.attacks.two_precisions import TwoPrecisions
from bascule.core.folded import FoldedNorms, OtherWayError
from bascule.core.restore import untouched
from bascule.core.rng import borrowed_global_stream, stream


class Pair(nn.Module):
    """A convolution and a norm, and a path through them."""

    def __init__(self, path: Callable[[Pair, Tensor], Tensor], *, bias: bool = True, affine: bool = True) -> None:
        super().__init__()
        with borrowed_global_stream(0, "net"):
            self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
            self.norm = nn.BatchNorm2d(4, affine=affine)
            self.other = nn.Conv2d(3, 4, 3, padding=1)
        numbers = stream(0, "numbers")
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.normal_(generator=numbers)
        self.norm.running_var.uniform_(0.5, 2, generator=numbers)
        if affine:
            self.norm.weight.data.normal_(generator=numbers)
            self.norm.bias.data.normal_(generator=numbers)
        self.path = path
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.path(self, x).mean((2, 3))


def straight(net: Pair, x: Tensor) -> Tensor:
    return F.relu_(net.norm(net.conv(x)))


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=stream(0, "images"))


def folded(net: nn.Module) -> FoldedNorms:
    return FoldedNorms(net, images(1))


def test_by_hand() -> None:
    """2 x + 1, from which 3 is taken, divided by 2, times 5 and plus 7: 5 x + 2."""
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    for parameter, value in ((conv.weight, 2.0), (conv.bias, 1.0), (norm.weight, 5.0), (norm.bias, 7.0)):
        assert parameter is not None
        parameter.data.fill_(value)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(3.0)
    net = nn.Sequential(conv, norm).eval().requires_grad_(False)
    found = FoldedNorms(net, torch.zeros(1, 1, 2, 2))
    assert found.behind == {conv: norm}
    assert {name: value.item() for name, value in found.parameters(conv).items()} == {"weight": 5.0, "bias": 2.0}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_answers_and_gradients_are_the_same_up_to_rounding(*, bias: bool, affine: bool) -> None:
    net = Pair(straight, bias=bias, affine=affine)
    x = images().requires_grad_(True)
    expected = net(x)
    (slope,) = torch.autograd.grad(expected.square().sum(), x)
    found = folded(net)
    values = found.parameters(net.conv)
    stand_in = Pair(straight)
    stand_in.norm = net.norm
    for name, value in values.items():
        getattr(stand_in.conv, name).data.copy_(value)
    found.behind = {stand_in.conv: net.norm}
    with found.left_out():
        answer = stand_in(x)
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(answer.square().sum(), x)[0], slope, rtol=1e-4, atol=1e-5)


def test_a_rough_pass_leaves_them_out_and_nothing_behind() -> None:
    net, x = Pair(straight), images()
    exact, before = net(x), {name: value.clone() for name, value in net.state_dict().items()}
    with untouched(net):
        seen = TwoPrecisions(net)
        handed: list[Tensor] = []
        for leaf in (x, x.clone().requires_grad_(True)):
            rough = seen.rough(leaf)
            assert F.cosine_similarity(rough.flatten(), exact.flatten(), 0) > 0.999
        assert seen._folded is not None
        with seen._folded.left_out(), seen._rounded.lent():
            handed = [net.conv(x.bfloat16())]
            assert net.norm(handed[0]) is handed[0]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert "forward" not in vars(net.conv)
    assert "forward" not in vars(net.norm)
    torch.testing.assert_close(net(x), exact, rtol=0, atol=0)


def shortcut(net: Pair, x: Tensor) -> Tensor:
    answer = net.conv(x)
    return net.norm(answer) + answer


def viewed(net: Pair, x: Tensor) -> Tensor:
    answer = net.conv(x)
    return net.norm(answer) + answer.detach()


def twice(net: Pair, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)) + net.norm(net.other(x))


def convolved_twice(net: Pair, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)) + net.conv(x)


def between(net: Pair, x: Tensor) -> Tensor:
    return net.norm(net.conv(x).relu())


def in_place(net: Pair, x: Tensor) -> Tensor:
    return net.norm(net.conv(x).relu_())


def read(net: Pair, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)) + F.conv2d(x, net.conv.weight, padding=1)


def before_it(net: Pair, x: Tensor) -> Tensor:
    return net.norm(net.other(x).sigmoid()) + net.conv(x)


@pytest.mark.parametrize(
    "path",
    [shortcut, viewed, twice, convolved_twice, between, in_place, read, before_it],
    ids=lambda path: path.__name__,
)
def test_what_something_else_can_see_is_left(path: Callable[[Pair, Tensor], Tensor]) -> None:
    assert not folded(Pair(path)).behind


def of_its_own(net: Pair) -> None:
    net.conv.forward = lambda x: F.conv2d(x, net.conv.weight.abs(), padding=1)  # type: ignore[method-assign]


def heard(net: Pair) -> None:
    net.norm.register_forward_hook(lambda *_: None)


def parametrised(net: Pair) -> None:
    nn.utils.parametrizations.weight_norm(net.conv)


def training(net: Pair) -> None:
    net.norm.train()


@pytest.mark.parametrize("change", [of_its_own, heard, parametrised, training], ids=lambda change: change.__name__)
def test_layers_that_are_more_than_their_class_says_are_left(change: Callable[[Pair], None]) -> None:
    net = Pair(straight)
    change(net)
    assert not folded(net).behind


def test_a_model_that_fails_is_left_to_whoever_calls_it() -> None:
    def fails(net: Pair, x: Tensor) -> Tensor:
        raise ValueError

    assert not folded(Pair(fails)).behind


def test_a_model_that_goes_another_way_later_is_passed_as_ever() -> None:
    """With one image the norm is behind the convolution, with three it is not, or is not there."""

    def elsewhere(net: Pair, x: Tensor) -> Tensor:
        return net.norm(net.conv(x) if len(x) == 1 else net.other(x))

    def past(net: Pair, x: Tensor) -> Tensor:
        return net.norm(net.conv(x)) if len(x) == 1 else net.conv(x)

    for path in (elsewhere, past):
        net = Pair(path)
        found = folded(net)
        assert found.behind
        with pytest.raises(OtherWayError), found.left_out():
            net(images())
        seen = TwoPrecisions(net)
        rough = seen.rough(images())
        assert F.cosine_similarity(rough.flatten(), net(images()).flatten(), 0) > 0.999
        assert seen._folded is None
