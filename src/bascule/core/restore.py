"""Using a model without leaving a trace: modes, frozen parameters, statistics and torch's own settings are put back.

Also after an error.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from bascule.core.lean import lean_input_gradients
from bascule.core.lending import lending

_HOOKS = [name for name, value in vars(nn.Module()).items() if "_hooks" in name and isinstance(value, dict)]
"""Attributes in which a module keeps its hooks."""


def trainable_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode of which every floating parameter wants a gradient, also one that is frozen in the model."""
    ours = copy.deepcopy(model).eval()
    for p in ours.parameters():
        p.requires_grad_(p.is_floating_point())
    return ours


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter wants a gradient inside the block, so differentiating the input does no other work.

    And that work is done the short way where there is one (`core.lean`).
    """
    with _frozen(list(model.modules())):
        yield


@contextmanager
def _frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    parameters = dict.fromkeys(p for m in modules for p in m._parameters.values() if p is not None)
    wanted = [(p, p.requires_grad) for p in parameters]
    for p, before in wanted:
        if before:
            p.requires_grad_(False)
    try:
        with lean_input_gradients(modules):
            yield
    finally:
        for p, before in wanted:
            if p.requires_grad != before:
                p.requires_grad_(before)


@contextmanager
def _mode(model: nn.Module, modules: Sequence[nn.Module], training: bool) -> Iterator[None]:
    """One mode for all inside the block; each submodule's own afterwards."""
    modes = [(m, m.training) for m in modules]
    try:
        if any(before != training for _, before in modes):
            model.train(training)
        yield
    finally:
        for m, before in modes:
            if m.training != before:
                m.training = before


@contextmanager
def evaluating(model: nn.Module, *, freeze: bool = False) -> Iterator[None]:
    """Eval mode inside the block, images lent as copies (`lending`); each submodule's own mode afterwards.

    With `freeze` no parameter wants a gradient inside the block (`frozen`), for one walk over the modules.
    """
    modules = list(model.modules())
    with _mode(model, modules, False), lending(model), _frozen(modules) if freeze else nullcontext():
        yield


@contextmanager
def using_batch_statistics(model: nn.Module, *, freeze: bool = False) -> Iterator[None]:
    """Train mode inside the block, without letting normalisation layers update their running statistics.

    Images are lent as copies (`lending`); `freeze` as for `evaluating`.
    """
    modules = list(model.modules())
    tracking = [m for m in modules if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    with _mode(model, modules, True), lending(model), _frozen(modules) if freeze else nullcontext():
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
    with buffers_kept(model), using_batch_statistics(model):
        return model(x)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers of any sort, running statistics among them, are after the block as they were before it."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def _hooks_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Hooks set inside the block on the model or its parts are gone afterwards."""
    # With the mark of the kind of backward hooks, which would forbid the caller the other kind.
    kept = [(m, m._is_full_backward_hook) for m in modules]
    hooks = [hooks for m in modules for name in _HOOKS if (hooks := vars(m).get(name)) is not None]
    before = [current.copy() if current else None for current in hooks]
    try:
        yield
    finally:
        for current, earlier in zip(hooks, before, strict=True):
            if current or earlier:
                current.clear()
                current.update(earlier or {})
        for m, full in kept:
            m._is_full_backward_hook = full


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode, frozen parameters and gradients enabled for the input, whatever the caller's state; hooks kept."""
    # After the hooks of `lending` have gone in, so that they are not among those which are put back.
    with evaluating(model, freeze=True), _hooks_kept(list(model.modules())), torch.enable_grad():
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
