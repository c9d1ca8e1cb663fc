"""Running an explanation: what is guaranteed whatever the method returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.core.catalog import name_of
from bascule.core.gradients import check_differentiable
from bascule.core.inference import chunks
from bascule.core.restore import untouched
from bascule.core.returned import returned
from bascule.explanations.contract import HeatMap, Spectrum


def run_heat_map(
    model: nn.Module, heat_map: HeatMap, x: Tensor, y: Tensor, *, generator: torch.Generator, batch_size: int
) -> Tensor:
    """Heat of every image: finite floats >= 0, N x H x W, of the type and on the device of `x`.

    The model is in eval mode with frozen parameters meanwhile, and found as it was afterwards, hooks included. An image
    whose heat is not finite everywhere gets none: all zero, which `trigger_attention` does not count.

    Args:
        model: From [0, 1] images to logits.
        heat_map: The method.
        x: Floats in [0, 1], N x C x H x W.
        y: int64 labels to explain, shape (N,).
        generator: On the device of `x`.
        batch_size: Images at a time; has no effect on the result but rounding and which draws an image gets.

    Raises:
        RequestError: The method does not fit the model (it follows gradients and there are none), or needs a package
            that is missing.
    """
    if heat_map.follows_gradients and len(x):
        check_differentiable(model, x, who=name_of(heat_map))
    heats = torch.zeros(len(x), *x.shape[2:], dtype=x.dtype, device=x.device)
    for index in chunks(len(x), batch_size, x.device):
        with untouched(model):
            # Clones, so that a method which works in place does not change the caller's images, nor its gradients.
            part, labels = x[index].detach(), y[index]
            heat = heat_map.heat(model, part, labels, generator=generator)
            heat = returned(heat, Tensor, who=heat_map, method="heat").detach()
        if heat.shape != heats[index].shape:
            raise ValueError(f"{heat_map!r} gave heat of shape {tuple(heat.shape)} for {tuple(heats[index].shape)}")
        heat = torch.where(heat.isfinite().flatten(1).all(1).reshape(-1, 1, 1), heat, 0)
        if bool((heat < 0).any()):
            raise ValueError(f"{heat_map!r} gave heat below zero")
        heats[index] = heat.to(heats)
    return heats


def run_spectrum(
    model: nn.Module, spectrum: Spectrum, x: Tensor, y: Tensor, *, generator: torch.Generator, batch_size: int
) -> Tensor:
    """Response of every image at every frequency: N x F, of the type and on the device of `x`, NaN where there is none.

    Arguments and guarantees as in `run_heat_map`; a response that is not finite counts as none.
    """
    count = len(spectrum.frequencies(x.shape[2], x.shape[3]))
    responses = torch.zeros(len(x), count, dtype=x.dtype, device=x.device)
    for index in chunks(len(x), batch_size, x.device):
        with untouched(model):
            part, labels = x[index].detach(), y[index]
            response = spectrum.response(model, part, labels, generator=generator)
            response = returned(response, Tensor, who=spectrum, method="response").detach()
        if response.shape != (len(index), count):
            given = f"{tuple(response.shape)} for {len(index)} images and {count} frequencies"
            raise ValueError(f"{spectrum!r} gave responses of shape {given}")
        responses[index] = torch.where(response.isfinite(), response, torch.nan).to(responses)
    return responses
