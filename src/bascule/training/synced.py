"""Batch norm over the whole batch where each process has its share of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bascule.core.errors import RequestError
from bascule.core.team import Team


@contextmanager
def synchronised(model: nn.Module, team: Team) -> Iterator[None]:
    """Inside the block, batch norm in train mode normalises by mean and variance over the images of all processes.

    All of them pass images through the network as often as the others. Two sums are exchanged for each layer and pass,
    and two more on the way back, which can be differentiated again. torch's own `SyncBatchNorm` does the same on CUDA
    only, and once. A pass that updates no running statistics where the layer has them, as a search's, goes by its own.

    Args:
        model: The network.
        team: The processes.

    Raises:
        RequestError: A layer of batch norm has a `forward` of its own.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    for name, layer in layers:
        if type(layer).forward is not _BatchNorm.forward or "forward" in vars(layer):
            raise RequestError(
                f"{name} ({type(layer).__name__}) has a forward of its own, which cannot be synchronised",
                place=("sync_batch_norm",),
            )
    for _, layer in layers:
        vars(layer)["forward"] = _Synced(layer, team)
    try:
        yield
    finally:
        for _, layer in layers:
            del vars(layer)["forward"]


class _Synced:
    """Stands in for the `forward` of a layer."""

    def __init__(self, layer: _BatchNorm, team: Team) -> None:
        self._layer, self._team, self._tracks = layer, team, layer.track_running_stats

    def __call__(self, x: Tensor) -> Tensor:
        layer = self._layer
        if not layer.training or layer.track_running_stats != self._tracks:
            return _BatchNorm.forward(layer, x)
        layer._check_input_dim(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = [dim for dim in range(x.dim()) if dim != 1]
        by_channel = (-1, *[1] * (x.dim() - 2))
        ones = wide.new_full((1,), x.numel() / x.shape[1])
        sums = self._sum(torch.cat([wide.sum(dims), ones]))
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = wide - mean.view(by_channel)
        variance = self._sum(centred.square().sum(dims)) / count
        self._follow(mean.detach(), variance.detach(), count.detach())
        normal = centred * (variance + layer.eps).rsqrt().view(by_channel)
        if layer.weight is not None:
            normal = normal * layer.weight.view(by_channel)
        if layer.bias is not None:
            normal = normal + layer.bias.view(by_channel)
        return normal.to(x.dtype)

    def _sum(self, values: Tensor) -> Tensor:
        summed: Tensor = _Sum.apply(values, self._team)  # type: ignore[no-untyped-call]
        return summed

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running statistics as torch does."""
        layer = self._layer
        if not layer.track_running_stats or layer.running_mean is None or layer.running_var is None:
            return
        share = layer.momentum
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
            share = 1 / float(layer.num_batches_tracked) if share is None else share
        share = 0.0 if share is None else share
        unbiased = variance * (count / (count - 1).clamp(min=1))
        layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), share)
        layer.running_var.lerp_(unbiased.to(layer.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """The sum over the processes; each one's loss depends on what the others gave."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, team: Team) -> Tensor:
        ctx.team = team
        summed = values.clone()
        team.sum([summed])
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradient, ctx.team), None  # type: ignore[no-untyped-call]
