"""Pruning channels that clean images hardly use, then fine-tuning."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from bascule.core.ahead import read_batches
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.inference import accuracy_on, chunks
from bascule.core.restore import evaluating
from bascule.repairs.contract import FineTuning, Repaired
from bascule.repairs.layers import capture, layers_of

_BATCH = 500
"""Images per pass; has no effect on the result but rounding."""


@component
class FinePruning(FineTuning):
    """Prunes the channels of the last convolution that clean images excite least, then fine-tunes the rest.

    As many as the accuracy on the defender's images can bear. Source: Liu et al. 2018 (Fine-Pruning: Defending Against
    Backdooring Attacks on Deep Neural Networks), section 3.

    Departures: the number of channels is found by bisection instead of one by one; a channel is cut where the next
    linear layer takes it in, which in a plain network comes to the same as removing it, and in a residual network
    removes it from the sum of all branches.

    Defaults: the training of `fine-tune`; `max_drop` is BackdoorBench's (there a tenth of the accuracy on test images,
    here ten points on the defender's), since the paper leaves it to the defender.
    """

    max_drop: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Accuracy on the defender's images (fraction) that pruning may cost."""
    max_share: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Largest share of the channels that may be pruned; 0 prunes none."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        linear, channels = _intake(model, images.size)
        _activity(model, linear, channels, images)

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        linear, channels = _intake(model, images.size)
        order = _activity(model, linear, channels, images).argsort(stable=True)
        before = accuracy_on(model, images)
        weight = linear.weight.detach().clone()

        def prune(count: int) -> Tensor:
            """Cut the `count` least active channels; returns where the linear layer's weights stay, K x D."""
            keep = torch.ones(channels, dtype=torch.bool, device=weight.device)
            keep[order[:count]] = False
            kept = keep.repeat_interleave(linear.in_features // channels).expand_as(weight)
            with torch.no_grad():
                linear.weight.copy_(torch.where(kept, weight, 0))
            return kept

        low, high = 0, int(self.max_share * channels)
        while low < high:  # `low` channels can go
            middle = (low + high + 1) // 2
            prune(middle)
            low, high = (middle, high) if before - accuracy_on(model, images) <= self.max_drop else (low, middle - 1)
        kept = prune(low)
        drop = before - accuracy_on(model, images)
        hook = linear.weight.register_hook(lambda gradient: torch.where(kept, gradient, 0))
        try:
            self.tune(model, images, generator=generator)
        finally:
            hook.remove()
        return Repaired(model, {"pruned": float(low), "channels": float(channels), "drop": drop})


def _intake(model: nn.Module, size: tuple[int, int, int]) -> tuple[nn.Linear, int]:
    """The linear layer that takes in what the last convolution has found, and that convolution's channels.

    Raises:
        RequestError: There is no such pair.
    """
    layers = [layer.module for layer in layers_of(model, size)]
    places = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    if not places:
        raise RequestError("fine-pruning prunes the last convolution, and the model has none; use fine-tune")
    last, behind = layers[places[-1]], layers[places[-1] + 1 :]
    assert isinstance(last, nn.Conv2d)
    if not behind or not isinstance(behind[0], nn.Linear) or behind[0].in_features % last.out_channels:
        raise RequestError(
            f"fine-pruning needs a linear layer that takes the {last.out_channels} channels of the last convolution, "
            f"flattened or pooled; what follows in this model is {behind[0] if behind else 'nothing'}. Use fine-tune"
        )
    return behind[0], last.out_channels


@torch.no_grad()
def _activity(model: nn.Module, linear: nn.Linear, channels: int, images: Images) -> Tensor:
    """Mean absolute value of each channel over the images, shape (channels,)."""
    total = torch.zeros(channels, dtype=torch.float64, device=images.device)
    with evaluating(model), capture([linear], inputs=True) as taken:
        for index, x in read_batches(images, chunks(len(images), _BATCH, images.device)):
            model(x)
            if taken[0].ndim != 2:
                raise RequestError(
                    f"fine-pruning needs a linear layer that takes one vector per image, this one takes "
                    f"{tuple(taken[0].shape)}; use fine-tune"
                )
            total += taken[0].reshape(len(index), channels, -1).abs().mean(2).double().sum(0)
    return total / len(images)
