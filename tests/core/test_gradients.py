"""Gradients of models that have some, and of those that have none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import networks
from bascule.core.errors import RequestError
from bascule.core.gradients import (
    check_differentiable,
    check_second_derivatives,
    gradient_of,
    gradients_of,
    is_differentiable,
    second_derivatives,
    takes_gradients,
)
from bascule.core.rng import borrowed_global_stream, stream

SIZE = (1, 4, 4)


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *SIZE, generator=stream(0, "images"))


def make(name: str):
    with borrowed_global_stream(0, "net"):
        return getattr(networks, name)(SIZE, 3).eval()


def test_a_gradient_by_hand_and_zero_where_there_is_none() -> None:
    x, other = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    assert gradient_of((x**2).sum(), x).tolist() == [2.0, 4.0]
    assert gradient_of(x**2, x, torch.tensor([1.0, 0.5])).tolist() == [2.0, 2.0]
    assert gradient_of((x.detach() ** 2).sum(), x).tolist() == [0.0, 0.0]
    by_x, by_other = gradients_of((x**2).sum(), [x, other])
    assert by_x.tolist() == [2.0, 4.0]
    assert float(by_other) == 0
    twice = gradient_of(gradient_of((x**3).sum(), x, create_graph=True).sum(), x)
    assert twice.tolist() == [6.0, 12.0]


@pytest.mark.parametrize(
    ("name", "takes", "differentiable", "connected"),
    [
        ("plain", True, True, True),
        ("in_place", True, True, True),
        ("sigmoid", True, True, True),
        ("rounded", True, False, True),
        ("detached", True, False, False),
        ("inference", True, False, False),
        ("outside", False, False, False),
    ],
)
def test_which_models_have_gradients(name: str, takes: bool, differentiable: bool, connected: bool) -> None:
    model, x = make(name), images()
    assert takes_gradients(model, x) == takes
    assert is_differentiable(model, x) == differentiable
    assert is_differentiable(model, x, connected=True) == connected
    if not differentiable:
        with pytest.raises(RequestError, match=r"some-method follows the gradient .* and this model has none"):
            check_differentiable(model, x, who="some-method")


def test_a_last_layer_of_zeros_is_a_path_all_the_same() -> None:
    model = make("plain")
    torch.nn.init.zeros_(model.body[3].weight)
    assert not is_differentiable(model, images())
    assert is_differentiable(model, images(), connected=True)


def test_attention_has_a_second_derivative_and_it_is_the_formulas() -> None:
    q = torch.rand(1, 1, 3, 4, dtype=torch.float64, generator=stream(0, "q")).requires_grad_(True)

    def curvature(attend) -> Tensor:
        slope = gradient_of(attend(q, q, q).square().sum(), q, create_graph=True)
        return gradient_of(slope.square().sum(), q)

    with second_derivatives():
        found = curvature(F.scaled_dot_product_attention)
    expected = curvature(lambda q, k, v: (q @ k.transpose(2, 3) / 2).softmax(3) @ v)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("inplace", [False, True])
def test_hardsigmoid_has_a_second_derivative(inplace: bool) -> None:
    x = (torch.rand(50, dtype=torch.float64, generator=stream(0, "x")) * 12 - 6).requires_grad_(True)
    plain = nn.Hardsigmoid()(x)
    with second_derivatives():
        found = nn.Hardsigmoid(inplace)(x * 1)
        torch.testing.assert_close(found, plain)
        (slope,) = torch.autograd.grad((found * x).sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x)
    inside = (x.abs() < 3).double()
    torch.testing.assert_close(slope, plain + x * inside / 6)
    torch.testing.assert_close(curvature, inside / 3)


class Twice(nn.Module):
    """With an operation before the last layer."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(4, 4), nn.Linear(4, 2), between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x.flatten(1))))


def test_second_derivatives_are_looked_for() -> None:
    x = torch.rand(2, 1, 2, 2, generator=stream(0, "x"))
    for between in (F.hardsigmoid, F.hardswish, torch.relu):
        check_second_derivatives(Twice(between), x)
    with pytest.raises(RequestError, match="second derivatives, which an operation"):
        check_second_derivatives(Twice(networks.Square.apply), x)


def test_an_operation_without_a_second_derivative_is_one_message() -> None:
    q = torch.rand(1, 1, 4, 8, generator=stream(0, "q")).requires_grad_(True)
    out = F.scaled_dot_product_attention(q, q, q)
    with pytest.raises(RequestError, match="second derivatives, which an operation"), second_derivatives():
        gradient_of(gradient_of(out.sum(), q, create_graph=True).square().sum(), q)
