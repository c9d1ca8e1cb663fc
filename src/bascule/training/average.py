"""Averaging weights along a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """The exponential moving average of a model's weights (`Training.ema`).

    After each step t, from 0: average = d * average + (1 - d) * weights, with d = min(decay, (1 + t) / (10 + t)), so
    that a short training is not the average of its beginning; before the first step it is the initial weights. Sources:
    Izmailov et al. 2018 average weights; Gowal et al. 2020 and Rebuffi et al. 2021 do it so in adversarial training. As
    in their code parameters are averaged, and buffers (the statistics of batch norm) are those of the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._averaged = AveragedModel(model)
        # torch would copy the weights after the first step, whatever the decay.
        self._averaged.n_averaged.fill_(1)

    def follow(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step number `step`."""
        decay = min(self._decay, (1 + step) / (10 + step))
        self._averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self._averaged.update_parameters(model)

    @torch.no_grad()
    def give(self, model: nn.Module) -> None:
        """Put the averaged weights into the model."""
        for own, averaged in zip(model.parameters(), self._averaged.module.parameters(), strict=True):
            if own.is_floating_point() or own.is_complex():  # others nobody trains, and their average would be cut off
                own.copy_(averaged)

    @contextmanager
    def lent(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights inside the block, and its own afterwards."""
        before = [(p, p.detach().clone()) for p in model.parameters()]
        self.give(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, own in before:
                    p.copy_(own)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return self._averaged.module.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._averaged.module.load_state_dict(state)
