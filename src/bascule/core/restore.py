"""Using a model without leaving a trace: modes, frozen parameters and statistics are put back, also after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter wants a gradient inside the block, so differentiating the input does no other work."""
    wanting = [p for p in model.parameters() if p.requires_grad]
    for p in wanting:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in wanting:
            p.requires_grad_(True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; each submodule's own mode afterwards."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def using_batch_statistics(model: nn.Module) -> Iterator[None]:
    """Train mode inside the block, without letting batch norm layers update their running statistics."""
    modes = [(m, m.training) for m in model.modules()]
    tracking = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    model.train()
    for m in tracking:
        m.track_running_stats = False
    try:
        yield
    finally:
        for m in tracking:
            m.track_running_stats = True
        for module, mode in modes:
            module.training = mode


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode, frozen parameters and gradients enabled for the input, whatever the caller's state."""
    with evaluating(model), frozen(model), torch.enable_grad():
        yield
