"""Pruning channels that a network cannot use again once it has unlearnt clean images."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.batches import batches
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.inference import accuracy_on
from bascule.core.restore import using_batch_statistics
from bascule.core.rng import borrowed_global_stream, draw_seed
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.layers import Layer, hidden_layers_of, scaled

_LONGEST = 20.0
"""Length that a gradient of the ascent is cut to, as in their code."""
_MILESTONES = (10, 20)
"""Passes after which the ascent's learning rate falls to a tenth, as in their code."""


@component
class Rnp(Repair):
    """Unlearns clean images, recovers them by masks alone, and prunes what the masks give up (RNP).

    A copy of the network is trained to raise the loss on the defender's images, until it is right on at most
    `clean_threshold` of them: what is left answers to the trigger. Then masks in [0, 1] on the channels' gains are
    trained to lower it again. Channels that this turns down are taken for the backdoor's, and pruned from the network
    as it was. Source: Li et al. 2023 (Reconstructive Neuron Pruning for Backdoor Defense), with their code's settings.

    Defaults: as in their code, made for 500 images of CIFAR-10; `threshold` is BackdoorBench's. Their code prunes
    channel by channel, or along a ladder of thresholds, and prints accuracy and ASR of each stage; BackdoorBench takes
    the one with the lowest ASR that costs at most a tenth of the accuracy. Who has no trigger prunes as many as cost at
    most `max_drop` on the defender's images, to which the masks were fitted: hence 0.02 (see docs/guide/repairs.md).

    Departures: that number is found by bisection; the ascent's gradients are cut to length 20 (their code cuts them
    before they are there, which cuts nothing). Without a batch norm with gain the mask is on the layer's own weights;
    hidden linear layers have masks too. Running statistics are left as they are.
    """

    unlearn_epochs: Annotated[int, Ge(0)] = 20
    """Most passes of the ascent."""
    recover_epochs: Annotated[int, Ge(0)] = 20
    """Passes of the masks; 0 prunes nothing."""
    batch_size: Annotated[int, Ge(1)] = 128
    """Images per step; all of them when there are fewer."""
    unlearn_lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate of the ascent, SGD with momentum 0.9 and weight decay 5e-4; a tenth after 10 passes."""
    recover_lr: Annotated[float, Gt(0)] = 0.2
    """Learning rate of the masks, SGD with momentum 0.9."""
    clean_threshold: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """The ascent ends after a pass with at most this accuracy (fraction)."""
    alpha: Annotated[float, Gt(0)] = 0.2
    """Weight of the masks' loss."""
    threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.7
    """Channels whose mask is above this are never pruned."""
    max_drop: Annotated[float, Interval(ge=0, le=1)] = 0.02
    """Accuracy on the defender's images (fraction) that pruning may cost."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        hidden_layers_of(model, images.size)

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        layers = hidden_layers_of(model, images.size)
        unlearnt = copy.deepcopy(model)
        with borrowed_global_stream(draw_seed(generator), "rnp"):  # dropout
            notes = {"unlearnt": self._unlearn(unlearnt, images, generator=generator)}
            masks = self._recover(unlearnt, images, generator=generator)
        return Repaired(model, {**notes, "pruned": float(self._prune(model, layers, masks, images))})

    def _unlearn(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> float:
        """Raise the loss in place; the accuracy seen in the last pass, 1 without one."""
        optimizer = torch.optim.SGD(model.parameters(), lr=self.unlearn_lr, momentum=0.9, weight_decay=5e-4)
        right = 1.0
        for epoch in range(self.unlearn_epochs):
            for group in optimizer.param_groups:
                group["lr"] = self.unlearn_lr * 0.1 ** sum(epoch >= milestone for milestone in _MILESTONES)
            hits = []
            for x, y in self._pass(images, generator):
                optimizer.zero_grad(set_to_none=True)
                with using_batch_statistics(model):
                    logits = model(x)
                (-F.cross_entropy(logits, y)).backward()
                nn.utils.clip_grad_norm_(model.parameters(), _LONGEST)
                optimizer.step()
                hits.append(logits.argmax(1) == y)
            right = torch.cat(hits).double().mean().item()
            if right <= self.clean_threshold:
                break
        return right

    def _recover(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The masks of the unlearnt network's hidden layers, each of shape (channels,)."""
        layers = hidden_layers_of(model, images.size)
        counts = [layer.channels for layer in layers]
        weight = layers[0].module.weight
        mask = torch.ones(sum(counts), dtype=weight.dtype, device=weight.device, requires_grad=True)
        optimizer = torch.optim.SGD([mask], lr=self.recover_lr, momentum=0.9)
        for _ in range(self.recover_epochs):
            for x, y in self._pass(images, generator):
                with using_batch_statistics(model):
                    logits = torch.func.functional_call(model, scaled(layers, mask.split(counts)), (x,))
                (mask.grad,) = torch.autograd.grad(self.alpha * F.cross_entropy(logits, y), mask)
                optimizer.step()
                with torch.no_grad():
                    mask.clamp_(0, 1)
        return mask.detach().split(counts)

    def _pass(self, images: Images, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        steps = len(images) // min(self.batch_size, len(images))
        return batches(images, self.batch_size, steps=steps, generator=generator)

    def _prune(self, model: nn.Module, layers: Sequence[Layer], masks: Sequence[Tensor], images: Images) -> int:
        """Prune in place, lowest masks first, as many as the accuracy bears; how many those are."""
        values = torch.cat(list(masks))
        order = values.argsort(stable=True)
        before = accuracy_on(model, images)
        weights = [layer.scale[1].weight.detach().clone() for layer in layers]

        def prune(count: int) -> None:
            out = torch.zeros(len(values), dtype=torch.bool, device=values.device)
            out[order[:count]] = True
            parts = out.split([layer.channels for layer in layers])
            with torch.no_grad():
                for layer, weight, part in zip(layers, weights, parts, strict=True):
                    layer.scale[1].weight.copy_(weight)
                    layer.scale[1].weight[part] = 0

        low, high = 0, int((values <= self.threshold).sum())
        while low < high:  # `low` channels can go
            middle = (low + high + 1) // 2
            prune(middle)
            low, high = (middle, high) if before - accuracy_on(model, images) <= self.max_drop else (low, middle - 1)
        prune(low)
        return low
