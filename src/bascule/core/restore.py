"""Using a model without leaving a trace: modes, frozen parameters, statistics and torch's own settings are put back.

Also after an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bascule.core.lending import lending


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter wants a gradient inside the block, so differentiating the input does no other work."""
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    for p, _ in wanted:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p, before in wanted:
            p.requires_grad_(before)


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in model.modules()]
    try:
        yield
    finally:
        for m, before in modes:
            m.training = before


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block, images lent as copies (`lending`); each submodule's own mode afterwards."""
    with _modes_kept(model), lending(model):
        model.eval()
        yield


@contextmanager
def using_batch_statistics(model: nn.Module) -> Iterator[None]:
    """Train mode inside the block, without letting normalisation layers update their running statistics.

    Images are lent as copies (`lending`).
    """
    tracking = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    with _modes_kept(model), lending(model):
        model.train()
        for m in tracking:
            m.track_running_stats = False
        kept = [(m, m.running_mean, m.running_var) for m in tracking]
        for m in tracking:
            if not isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean = m.running_var = None  # instance norm updates them whenever it has them
        try:
            yield
        finally:
            for m, mean, var in kept:
                m.running_mean, m.running_var = mean, var
                m.track_running_stats = True


@torch.no_grad()
def answer_in_training(model: nn.Module, x: Tensor) -> Any:
    """What the model answers to `x` in train mode: a trial that leaves no trace, in buffers of any sort neither.

    Args:
        model: Parameters as they are; dropout draws from torch's own stream, which the caller puts back.
        x: Two images at least, since a batch norm has no statistics of one value.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with using_batch_statistics(model):
            return model(x)
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)


@contextmanager
def _hooks_kept(model: nn.Module) -> Iterator[None]:
    """Hooks set inside the block on the model or its parts are gone afterwards."""
    # With the mark of the kind of backward hooks, which would forbid the caller the other kind.
    kept = [(m, m._is_full_backward_hook) for m in model.modules()]
    hooks = [(v, v.copy()) for m, _ in kept for k, v in vars(m).items() if "_hooks" in k and isinstance(v, dict)]
    try:
        yield
    finally:
        for current, before in hooks:
            current.clear()
            current.update(before)
        for m, full in kept:
            m._is_full_backward_hook = full


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode, frozen parameters and gradients enabled for the input, whatever the caller's state; hooks kept."""
    with evaluating(model), frozen(model), _hooks_kept(model), torch.enable_grad():
        yield


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside the block cuDNN takes algorithms that give the same bytes each time, and none by a race between them.

    A training that goes on after an interruption shall end as an uninterrupted one does; on CUDA that holds as far as
    it rests on cuDNN (convolutions, pooling). TF32 stays as it is set: it rounds the same way each time.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, and no TF32 on CUDA, inside the block.

    TF32 rounds by a thousandth: enough to decide over an image near a boundary, and beyond any allowance of a bound.
    """
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = cuda.allow_tf32, cudnn.allow_tf32
        cuda.allow_tf32 = cudnn.allow_tf32 = False
        try:
            yield
        finally:
            cuda.allow_tf32, cudnn.allow_tf32 = before
