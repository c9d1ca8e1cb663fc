"""Gradients of a model's answers by its images, also of models that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from bascule.core.errors import RequestError
from bascule.core.restore import untouched

_LOOKED_AT = 8
"""Images in which a gradient is looked for: at a few of them, units may all be at rest."""


def gradient_of(
    value: Tensor, x: Tensor, weight: Tensor | None = None, *, retain_graph: bool = False, create_graph: bool = False
) -> Tensor:
    """The gradient of `value` by the leaf `x`, of the shape of `x`: zero where the one does not depend on the other.

    A model that detaches or rounds its images, or answers without a graph, has no gradient; that is a fact about the
    model, which `attack.checks` reports, and no fault of the search.

    Args:
        value: A scalar, or any shape together with `weight`.
        x: A leaf that wants a gradient.
        weight: The gradient by `value`.
        retain_graph: Keep the graph for another call.
        create_graph: Make the gradient itself differentiable.
    """
    return gradients_of(value, [x], weight, retain_graph=retain_graph, create_graph=create_graph)[0]


def gradients_of(
    value: Tensor,
    leaves: Sequence[Tensor],
    weight: Tensor | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    """As `gradient_of`, by several leaves."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(
        value,
        leaves,
        weight,
        retain_graph=retain_graph or create_graph,
        create_graph=create_graph,
        materialize_grads=True,
    )


class WithoutGradient(nn.Module):
    """A model that cannot even be called on images that want a gradient, called without: its gradient is zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """As the model."""
        with torch.no_grad():
            logits: Tensor = self.model(x.detach())
        return logits


def takes_gradients(model: nn.Module, x: Tensor) -> bool:
    """Whether the model can be called on images that want a gradient: not so where it leaves torch (NumPy, ONNX)."""
    with untouched(model):
        return _called(model, x.detach().clone().requires_grad_(True)) is not None


def _called(model: nn.Module, leaf: Tensor) -> Tensor | None:
    """The answers, or None where the model fails on images that want a gradient."""
    try:
        logits: Tensor = model(leaf)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # somebody's code may raise anything
        with torch.no_grad():
            model(leaf.detach())  # one that fails on any images says why itself
        return None
    return logits


def is_differentiable(model: nn.Module, x: Tensor, *, connected: bool = False) -> bool:
    """Whether a gradient of the answers reaches the images.

    Args:
        model: From [0, 1] images to logits; in eval mode meanwhile, and found as it was.
        x: Floats in [0, 1], B x C x H x W; at most eight are looked at.
        connected: Whether a path is enough, be the gradient zero: a network that nobody trained may begin with zeros.
    """
    with untouched(model):
        leaf = x[:_LOOKED_AT].detach().clone().requires_grad_(True)
        logits = _called(model, leaf)
        if logits is None or not logits.requires_grad:
            return False
        # Not the sum, which is the same for all images where the outputs are probabilities.
        weight = torch.arange(logits.numel(), device=logits.device).cos().reshape(logits.shape).to(logits)
        (gradient,) = torch.autograd.grad(logits, leaf, weight, allow_unused=True)
    if gradient is None:
        return False
    return connected or bool(((gradient != 0) & gradient.isfinite()).any())


def check_differentiable(model: nn.Module, x: Tensor, *, who: str, connected: bool = False) -> None:
    """Refuse a model without gradients where `who` would follow them.

    Raises:
        RequestError: No gradient reaches the images.
    """
    if not is_differentiable(model, x, connected=connected):
        raise RequestError(no_gradients(who))


def check_follows(loss: Tensor) -> None:
    """Refuse to train what its parameters do not change.

    Raises:
        RequestError: The loss has no gradient by any parameter.
    """
    if not loss.requires_grad:
        raise RequestError(
            "cannot be trained: no gradient reaches a parameter. All of them are frozen (`requires_grad` is False), or "
            "the network computes without gradients (`torch.no_grad` in its forward)",
            place=("model",),
        )


def no_gradients(who: str) -> str:
    """What to say to `who` follows gradients that a model does not have."""
    return (
        f"{who} follows the gradient of the model's answers by its images, and this model has none: it detaches or "
        "rounds the images, or computes outside of torch. Give the network without that step, or choose a method that "
        "needs no gradients"
    )


@contextmanager
def second_derivatives() -> Iterator[None]:
    """What is differentiated inside the block can be differentiated again: some operations are written out.

    The fused kernels of `scaled_dot_product_attention` and of `hardsigmoid` have a first derivative only.

    Raises:
        RequestError: Another operation of the model has none.
    """
    with sdpa_kernel(SDPBackend.MATH), _WrittenOut():
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            if "once_differentiable" not in reason and not ("derivative" in reason and "not implemented" in reason):
                raise
            raise RequestError(
                f"this needs second derivatives, which an operation of the model does not have: {reason}"
            ) from error


class _WrittenOut(TorchFunctionMode):
    """Calls of `hardsigmoid` are computed as clamp(x / 6 + 1 / 2, 0, 1), step by step."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.hardsigmoid:
            return func(*args, **kwargs)
        return _hardsigmoid(*args, **kwargs)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002  (torch's own name)
    value = F.relu6(input + 3) / 6
    return input.copy_(value) if inplace else value


def check_second_derivatives(model: nn.Module, x: Tensor) -> None:
    """Refuse a model whose gradient by the images `x` cannot be differentiated by its parameters.

    Their `.grad` is left for garbage: to differentiate by what is asked for alone would pass by, without a word, what
    `once_differentiable` forbids.

    Raises:
        RequestError: An operation of it has no second derivative.
    """
    with torch.enable_grad(), second_derivatives():
        leaf = x.detach().clone().requires_grad_(True)
        slope = gradient_of(model(leaf).square().sum(), leaf, create_graph=True)
        if slope.requires_grad:
            slope.square().sum().backward()
