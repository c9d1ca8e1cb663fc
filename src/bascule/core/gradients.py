"""Gradients of a model's answers by its images, also of models that have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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


def no_gradients(who: str) -> str:
    """What to say to `who` follows gradients that a model does not have."""
    return (
        f"{who} follows the gradient of the model's answers by its images, and this model has none: it detaches or "
        "rounds the images, or computes outside of torch. Give the network without that step, or choose a method that "
        "needs no gradients"
    )


@contextmanager
def second_derivatives() -> Iterator[None]:
    """What is differentiated inside the block can be differentiated again: attention is computed by its formula.

    The fused kernels of `scaled_dot_product_attention` have a first derivative only.

    Raises:
        RequestError: Another operation of the model has none.
    """
    with sdpa_kernel(SDPBackend.MATH):
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            if "derivative" not in reason or "not implemented" not in reason:
                raise
            raise RequestError(
                f"this needs second derivatives, which an operation of the model does not have: {reason}"
            ) from error
