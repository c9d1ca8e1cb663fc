"""Running a certifier: what is guaranteed whatever it returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.certifiers.contract import Certified, Certifier
from bascule.core.errors import RequestError
from bascule.core.inference import labels_of
from bascule.core.lending import own_type
from bascule.core.restore import evaluating, frozen, full_precision
from bascule.core.returned import returned


def run_certifier(
    model: nn.Module, certifier: Certifier, x: Tensor, y: Tensor, *, generator: torch.Generator
) -> Certified:
    """Ask `certifier` about the images the model gets right; the others are never certified.

    The model is in eval mode with frozen parameters, without gradients and in full precision (no autocast, no TF32),
    and is found as it was afterwards. A radius that is negative or not finite counts as 0.

    Args:
        model: From [0, 1] images to logits.
        certifier: The bound.
        x: Floats in [0, 1], B x C x H x W.
        y: int64 labels, shape (B,).
        generator: On the device of `x`.

    Raises:
        RequestError: The bound cannot follow an operation of the model or its 16 bits, or a logit is not a number.
    """
    x, radius = x.detach(), torch.zeros(len(x), dtype=x.dtype, device=x.device)
    if len(x) == 0:  # which not every network can take
        none = torch.zeros_like(y, dtype=torch.bool)
        return Certified(radius=radius, right=none, certified=none, eps=certifier.eps)
    with evaluating(model), frozen(model), torch.no_grad(), full_precision(x.device):
        right = labels_of(model(x)) == y
        index = right.nonzero().squeeze(1)
        if len(index):
            radii = certifier.radius(model, _as_computed(model, certifier, x[index]), y[index], generator=generator)
            radii = returned(radii, Tensor, who=certifier, method="radius")
            if radii.shape != index.shape:
                raise ValueError(f"{certifier!r} gave radii of shape {tuple(radii.shape)} for {len(index)} images")
            radius[index] = torch.where(radii.isfinite(), radii, 0).clamp_min(0).to(radius)
    # An image certified at eps has the radius eps in its own type, which may lie below the Python number.
    asked = torch.tensor(certifier.eps, dtype=x.dtype, device=x.device)
    return Certified(radius=radius, right=right, certified=right & (radius >= asked), eps=certifier.eps)


def check_certifier(model: nn.Module, certifier: Certifier, x: Tensor) -> None:
    """Try before any work whether `certifier` can say anything of `model`, which is found as it was afterwards.

    Args:
        model: As for `run_certifier`.
        certifier: The bound.
        x: One image or two, as for `run_certifier`.

    Raises:
        RequestError: As `run_certifier`.
    """
    with evaluating(model), frozen(model), torch.no_grad(), full_precision(x.device):
        certifier.check_model(model, _as_computed(model, certifier, x))


def _as_computed(model: nn.Module, certifier: Certifier, x: Tensor) -> Tensor:
    """The images in the type in which bounds on this model are computed.

    Raises:
        RequestError: That has 16 bits, which round by more than what is allowed for.
    """
    own = own_type(model) if certifier.of_model else None
    if own is None or own == x.dtype:
        return x
    if own.itemsize < 4:
        raise RequestError(
            f"certified bounds need a model in 32 or 64 bits; this one computes in {str(own).removeprefix('torch.')}"
        )
    return x.to(own)
