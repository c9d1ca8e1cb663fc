"""One pattern for all images, found on a proxy by descent: what Narcissus and the low-frequency trigger share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.batches import batches
from bascule.core.errors import RequestError
from bascule.core.gradients import check_differentiable, gradient_of
from bascule.core.images import Images
from bascule.core.restore import untouched
from bascule.triggers.contract import Trigger


class Pattern(Trigger):
    """A pattern that is added, then clipped to [0, 1]; known to those alone who have found it."""

    def __init__(self, pattern: Tensor, *, times_at_test: float = 1.0) -> None:
        """`pattern` is C x H x W, `times_at_test` how much stronger test images show it."""
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "_times_at_test", times_at_test)

    __eq__, __hash__ = object.__eq__, object.__hash__  # components compare their settings, of which it has none
    _pattern: Tensor
    _times_at_test: float

    @property
    def at_test(self) -> Pattern:
        """The stronger one."""
        return Pattern(self._pattern * self._times_at_test)

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        if x.shape[1:] != self._pattern.shape:
            sizes = [" x ".join(map(str, shape)) for shape in (self._pattern.shape, x.shape[1:])]
            raise RequestError(f"the pattern was searched for on images of {sizes[0]}, these are {sizes[1]}")
        return (x + self._pattern.to(x)).clamp_(0, 1)


def first_of(images: Images) -> Tensor:
    """A few of the images, to look for gradients at."""
    return images.batch(torch.arange(min(8, len(images)), device=images.device))


def universal(
    proxy: nn.Module,
    images: Images,
    target: int,
    raw: Tensor,
    shape: Callable[[Tensor], Tensor],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> Tensor:
    """The pattern, C x H x W, with which the proxy takes these images for the target: least mean cross-entropy.

    By its logarithm, which falls in the same direction and has a gradient where a proxy that is sure of itself leaves
    none of the cross-entropy in float32. RAdam (Liu et al. 2020) on raw values, over batches in a fresh random order at
    every pass; ends early where a pass ends without a gradient, since no image would move the pattern any more.

    Args:
        proxy: From [0, 1] images to logits; its parameters and modes stay as they are.
        images: What the pattern is added to.
        target: The label aimed at.
        raw: Where the search begins, C x H x W.
        shape: From raw values to the pattern; differentiable.
        steps: At most.
        batch_size: Images per step.
        lr: Of RAdam, in raw values.
        generator: On the device of the images.

    Raises:
        RequestError: The proxy has no gradient.
    """
    check_differentiable(proxy, first_of(images), who="the search")
    raw = raw.detach().clone().requires_grad_(True)
    optimizer = torch.optim.RAdam([raw], lr=lr)
    passes = max(1, len(images) // batch_size)
    with untouched(proxy):
        for step, (x, _) in enumerate(batches(images, batch_size, steps=steps, generator=generator)):
            loss = log_mean_cross_entropy(proxy((x + shape(raw)).clamp(0, 1)), target)
            raw.grad = gradient_of(loss, raw)
            if step % passes == passes - 1 and not bool(raw.grad.any()):
                break
            optimizer.step()
    return shape(raw.detach())


def log_mean_cross_entropy(logits: Tensor, target: int) -> Tensor:
    """Logarithm of the mean cross-entropy of B x K logits on one label, a scalar, also where that mean rounds to 0.

    The cross-entropy of a row is softplus(z), z the logarithm of the sum of the other classes' exponentials minus the
    label's logit; its logarithm is z itself from z = -17 down, to the last bit of float32.
    """
    own = torch.full((len(logits), 1), target, device=logits.device)
    z = logits.scatter(1, own, -torch.inf).logsumexp(1) - logits[:, target]
    logs = torch.where(z < -17, z, F.softplus(z.clamp_min(-17)).log())
    return logs.logsumexp(0) - math.log(len(logits))
