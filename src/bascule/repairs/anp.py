"""Pruning channels that an adversary of the weights would use."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.batches import batches
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.restore import untouched
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.layers import Layer, hidden_layers_of, scaled


@component
class Anp(Repair):
    """Adversarial neuron pruning: learns a mask over channels under the worst small change of weights, prunes by it.

    With masks m in [0, 1], and relative changes d of weights and e of biases within eps, it minimises
    alpha * CE(m w, b) + (1 - alpha) * max_{d, e} CE((m + d) w, (1 + e) b) on clean images, then sets w to 0 where
    m <= threshold. w and b are a channel's gain and shift in the batch norm behind its layer. Source: Wu & Wang 2021
    (Adversarial Neuron Pruning Purifies Backdoored Deep Models), with their code's settings.

    Defaults: all as in their code; the threshold is the paper's, their code tries many.

    Departures: batch norm uses its running statistics, with which the pruned network will run, theirs those of the
    batch; after the one signed step from a random start the changes are brought back within eps, their code lets them
    reach twice that. Without a batch norm with gain, w and b are the layer's own weights and bias; hidden linear layers
    have masks too.
    """

    steps: Annotated[int, Ge(0)] = 2000
    """Steps of the mask's descent; 0 prunes nothing."""
    batch_size: Annotated[int, Ge(1)] = 128
    """Images per step; all of them when there are fewer."""
    lr: Annotated[float, Gt(0)] = 0.2
    """Learning rate of the masks, SGD with momentum 0.9."""
    eps: Annotated[float, Ge(0)] = 0.4
    """Largest relative change of a weight or bias."""
    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """Weight of the loss without changes."""
    threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Channels whose mask is not above this are pruned."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        hidden_layers_of(model, images.size)

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        layers = hidden_layers_of(model, images.size)
        masks = self._masks(model, layers, images, generator=generator)
        pruned = 0
        for layer, mask in zip(layers, masks, strict=True):
            out = mask <= self.threshold
            _, module = layer.scale
            with torch.no_grad():
                module.weight[out] = 0
            pruned += int(out.sum())
        return Repaired(model, {"pruned": float(pruned)})

    def _masks(
        self, model: nn.Module, layers: list[Layer], images: Images, *, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """The learnt mask of each layer, shape (channels,)."""
        counts = [layer.channels for layer in layers]
        weight = layers[0].module.weight
        mask = torch.ones(sum(counts), dtype=weight.dtype, device=weight.device, requires_grad=True)
        optimizer = torch.optim.SGD([mask], lr=self.lr, momentum=0.9)
        with untouched(model):
            for x, y in batches(images, self.batch_size, steps=self.steps, generator=generator):

                def loss(scale: Tensor, shift: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
                    weights = scaled(layers, scale.split(counts), shift.split(counts))
                    return F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)

                still = torch.ones_like(mask)
                noise = torch.empty(2, len(mask), dtype=mask.dtype, device=mask.device)
                noise.uniform_(-self.eps, self.eps, generator=generator).requires_grad_(True)
                (uphill,) = torch.autograd.grad(loss(mask.detach() + noise[0], still + noise[1]), noise)
                noise = (noise.detach() + self.eps * uphill.sign()).clamp(-self.eps, self.eps)
                optimizer.zero_grad(set_to_none=True)
                total = self.alpha * loss(mask, still)
                total = total + (1 - self.alpha) * loss(mask + noise[0], still + noise[1])
                total.backward()
                optimizer.step()
                with torch.no_grad():
                    mask.clamp_(0, 1)
        return mask.detach().split(counts)
