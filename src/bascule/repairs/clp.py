"""Pruning channels that may amplify too much."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.layers import Layer, hidden_layers_of


@component
class Clp(Repair):
    """Silences channels whose Lipschitz bound stands out in their layer; needs no images (channel Lipschitz pruning).

    A channel is silenced when its bound is above mean + u * standard deviation of its layer. Source: Zheng et al. 2022
    (Data-free Backdoor Removal based on Channel Lipschitzness), algorithm 1, with the bound of their code: the spectral
    norm of the kernel as a matrix of input channels x positions, times the batch norm's |gain| / standard deviation.

    Defaults: u = 3, as in the paper for CIFAR-10 and in BackdoorBench.

    Departures: they prune convolutions with batch norm only; here also those without, and the units of hidden linear
    layers (length of the weights). In a layer of n channels the largest possible bound is mean + (n - 1) / sqrt(n)
    standard deviations, so with u = 3 layers of fewer than 11 channels are never pruned.
    """

    needs_images: ClassVar[bool] = False

    u: Annotated[float, Ge(0)] = 3.0
    """Standard deviations above the layer's mean from which on a channel is silenced; the more, the fewer."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        hidden_layers_of(model, images.size)

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        silenced = 0
        for layer in hidden_layers_of(model, images.size):
            bounds = lipschitz_bounds(layer)
            outlying = bounds > bounds.mean() + self.u * bounds.std()
            layer.silence(outlying)
            silenced += int(outlying.sum())
        return Repaired(model, {"silenced": float(silenced)})


@torch.no_grad()
def lipschitz_bounds(layer: Layer) -> Tensor:
    """For each channel of a layer, the bound as computed in their code, shape (channels,)."""
    kernels = layer.module.weight.reshape(layer.channels, layer.module.weight.shape[1], -1)
    bounds = torch.linalg.matrix_norm(kernels, ord=2)
    norm = layer.norm
    if norm is not None and norm.running_var is not None:
        gain = norm.weight.abs() if norm.affine else 1.0
        bounds = bounds * gain / (norm.running_var + norm.eps).sqrt()
    return bounds
