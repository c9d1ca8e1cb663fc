"""Images tampered with at random, to learn from: nothing here knows any attack's trigger."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def tamper(x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Copies of [0, 1] images, B x C x H x W, each changed in one of five ways drawn at random."""
    ways: list[Callable[[Tensor, torch.Generator], Tensor]] = [_white_patch, _noise_patch, _noise, _blend, _shadow]
    way = torch.randint(len(ways), (len(x),), generator=generator, device=x.device)
    changed = x.clone()
    for number, change in enumerate(ways):
        chosen = (way == number).nonzero().squeeze(1)
        if len(chosen):
            changed[chosen] = change(x[chosen], generator)
    return changed.clamp_(0, 1)


def _uniform(x: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """One number per image, B x 1 x 1 x 1."""
    return low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)


def _patch(x: Tensor, generator: torch.Generator) -> Tensor:
    """Where a square of random place and size (a sixteenth to a third of the shorter side) lies, B x 1 x H x W."""
    height, width = x.shape[2:]
    side = min(height, width)
    size = _uniform(x, max(1, side / 16), max(2, side / 3), generator).round()
    top = (_uniform(x, 0, 1, generator) * (height - size + 1)).floor()
    left = (_uniform(x, 0, 1, generator) * (width - size + 1)).floor()
    row = torch.arange(height, device=x.device).reshape(1, 1, -1, 1)
    column = torch.arange(width, device=x.device).reshape(1, 1, 1, -1)
    return (row >= top) & (row < top + size) & (column >= left) & (column < left + size)


def _white_patch(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(_patch(x, generator), 1.0, x)


def _noise_patch(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(_patch(x, generator), torch.rand(x.shape, generator=generator, device=x.device), x)


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + _uniform(x, 0.02, 0.15, generator) * torch.randn(x.shape, generator=generator, device=x.device)


def _blend(x: Tensor, generator: torch.Generator) -> Tensor:
    share = _uniform(x, 0.1, 0.3, generator)
    other = x[torch.randperm(len(x), generator=generator, device=x.device)]
    return (1 - share) * x + share * other


def _shadow(x: Tensor, generator: torch.Generator) -> Tensor:
    """A half-plane through a random point of the image, darkened."""
    height, width = x.shape[2:]
    row = torch.arange(height, device=x.device).reshape(1, 1, -1, 1) / height - _uniform(x, 0, 1, generator)
    column = torch.arange(width, device=x.device).reshape(1, 1, 1, -1) / width - _uniform(x, 0, 1, generator)
    turn = _uniform(x, 0, 2 * torch.pi, generator)
    shaded = row * turn.cos() + column * turn.sin() > 0
    return torch.where(shaded, x * _uniform(x, 0.3, 0.7, generator), x)
