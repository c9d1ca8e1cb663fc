"""One pass of an attack: which images are not fooled yet, with the gradient of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bascule.attacks.two_precisions import TwoPrecisions, search_pass
from bascule.core.gradients import gradient_of


class Unfooled(NamedTuple):
    """What one pass of B images says of those that are not fooled yet."""

    kept: Tensor
    """int64, shape (S,), ascending: images the model still takes for what they are."""
    value: Tensor
    """Loss of these S images, shape (S,)."""
    gradient: Tensor
    """Its gradient with respect to these images, S x C x H x W."""


def find_unfooled(
    model: nn.Module, x: Tensor, loss: Callable[..., Tensor], labels: tuple[Tensor, ...], *, passes: int = 1
) -> Unfooled:
    """Which images are still classified as `labels[0]`, and loss and gradient of these.

    Args:
        model: From images to logits, parameters frozen. In two precisions who is fooled is decided in float32, loss and
            gradient are of the pass in bfloat16.
        x: B x C x H x W.
        loss: Called with the logits and all of `labels`; loss per image.
        labels: Tensors of shape (B,), the true labels first.
        passes: For a randomised model, passes over which loss and gradient are averaged, in float32 always; an image is
            fooled when it is misclassified in all of them.
    """
    if passes > 1:
        return _averaged(model, x, loss, labels, passes)
    forward = search_pass(model)
    x = x.detach().requires_grad_(True)
    logits = forward(x)
    right = logits.detach().argmax(1) == labels[0]
    if isinstance(model, TwoPrecisions):
        right = ~model.fooled(x, logits, labels[0])
    index = right.nonzero().squeeze(1)
    if len(index) == 0:
        return Unfooled(index, logits.new_empty(0), x.detach()[:0])
    if 2 * len(index) < len(x):
        # The way back leads through the whole batch: for few images another way forth is cheaper.
        x, labels = x.detach()[index].requires_grad_(True), tuple(label[index] for label in labels)
        logits = forward(x)
    value = loss(logits, *labels)
    gradient = gradient_of(value.sum(), x)
    value = value.detach()
    if len(index) < len(value):
        value, gradient = value[index], gradient[index]
    return Unfooled(index, value, gradient)


def _averaged(
    model: nn.Module, x: Tensor, loss: Callable[..., Tensor], labels: tuple[Tensor, ...], passes: int
) -> Unfooled:
    x = x.detach().requires_grad_(True)
    mask = torch.zeros_like(labels[0], dtype=torch.bool)
    total, gradient = x.new_zeros(len(x)), torch.zeros_like(x)
    for _ in range(passes):
        logits = model(x)
        value = loss(logits, *labels)
        gradient += gradient_of(value.sum(), x) / passes
        total += value.detach() / passes
        mask |= logits.detach().argmax(1) == labels[0]
    index = mask.nonzero().squeeze(1)
    return Unfooled(index, total[index], gradient[index])
