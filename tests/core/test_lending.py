"""A model cannot change what it is given."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import networks
from bascule.core.errors import RequestError
from bascule.core.lending import lending, lends, stop_lending
from bascule.core.restore import evaluating, untouched, using_batch_statistics
from bascule.core.rng import borrowed_global_stream, stream

SIZE = (1, 4, 4)
WRITERS = [networks.in_place, networks.in_place_operators, networks.in_place_view]


def make(factory: Callable[..., nn.Module], classes: int = 3) -> nn.Module:
    with borrowed_global_stream(0, "net"):
        return factory(SIZE, classes).eval()


def images() -> Tensor:
    return torch.rand(5, *SIZE, generator=stream(0, "images"))


@pytest.mark.parametrize("manager", [evaluating, untouched, using_batch_statistics, lending])
@pytest.mark.parametrize("factory", WRITERS)
def test_what_a_model_writes_into_its_images_reaches_nobody(factory, manager) -> None:
    x, before = images(), images()
    model = make(factory)
    with manager(model), torch.no_grad():
        first, again = model(x), model(x)
    assert torch.equal(x, before)
    assert torch.equal(first, again)


@pytest.mark.parametrize("factory", [networks.in_place, networks.in_place_operators])
def test_a_leaf_that_wants_a_gradient_gets_the_right_one(factory) -> None:
    gradients = []
    for model in (make(factory), make(networks.plain)):
        leaf = images().requires_grad_(True)
        with untouched(model):
            gradients.append(torch.autograd.grad(model(leaf).square().sum(), leaf)[0])
    assert torch.equal(*gradients)


def test_ordinary_answers_are_the_same_bits() -> None:
    model, x = make(networks.plain), images()
    with torch.no_grad():
        bare = model(x)
        with lending(model):
            assert torch.equal(model(x), bare)


def test_blocks_inside_blocks_add_nothing_and_leave_nothing() -> None:
    model = make(networks.plain)
    with lending(model), evaluating(model):
        assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 1
        copied = copy.deepcopy(model)
    assert not lends(model)
    assert lends(copied)
    stop_lending(copied)
    assert not copied._forward_pre_hooks
    assert not copied._forward_hooks


def test_scripted_modules_are_lent_copies_as_well() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2).flatten(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which kind of warning depends on the version of torch
        model = torch.jit.script(Writes())
    x = images()
    with lending(model):
        assert torch.equal(model(x), 2 * images().flatten(1))
    assert torch.equal(x, images())


@pytest.mark.parametrize("own", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_type_computes_in_its_own_and_answers_in_ours(own: torch.dtype) -> None:
    model, x = make(networks.plain).to(own), images()
    with torch.no_grad():
        expected = model(x.to(own)).float()
        with lending(model):
            found = model(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_answers_in_fewer_bits_are_widened_and_in_more_are_kept() -> None:
    narrow = networks.Around(SIZE, 3, lambda x: x, lambda net, logits: logits.half())
    wide = networks.Around(SIZE, 3, lambda x: x, lambda net, logits: logits.double())
    for model, expected in ((narrow, torch.float32), (wide, torch.float64)):
        with lending(model):
            assert model(images()).dtype == expected


def test_something_else_than_a_tensor_is_one_message() -> None:
    model = make(networks.auxiliary)
    with lending(model):
        model(images())
    with using_batch_statistics(model), pytest.raises(RequestError, match="in train mode answers with tuple"):
        model(images())


def test_logits_are_counted_where_asked_also_inside_another_block() -> None:
    model = make(networks.wider_in_training).train()
    with lending(model):
        model(images())
        with lending(model, classes=3), pytest.raises(RequestError, match=r"shape \(5, 6\) for 5 images.*\(5, 3\)"):
            model(images())
        model(images())


def test_what_was_made_in_inference_mode_can_be_gone_on_with() -> None:
    model, leaf = make(networks.inference), images().requires_grad_(True)
    with untouched(model):
        ((leaf.flatten(1)[:, :3] * model(leaf)).sum()).backward()
    assert leaf.grad is not None
