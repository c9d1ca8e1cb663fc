"""What a model's passes take here: what a proposal of minutes rests on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from bascule.core.gradients import gradient_of, is_differentiable
from bascule.core.images import Shown
from bascule.core.restore import evaluating, untouched

_BATCH = 64
_TRIES = 3
_HELP = 0.7
"""So many threads are worth this power of their number, on small pictures."""
_LEAST = 1e-5
"""Seconds below which a clock tells nothing."""


class Cost(NamedTuple):
    """Seconds that one image takes on this machine, when no other program is in the way."""

    forward: float
    """Through the model."""
    both: float
    """Through it and back to the pixels; as `forward` where there are no gradients."""
    gradients: bool
    """Whether the answers of the model can be differentiated by the image."""


def measure_cost(model: nn.Module, images: Shown) -> Cost:
    """The quickest of a few tries on a batch of `images`, on their device; the model is found as it was."""
    index = torch.arange(min(_BATCH, len(images)), device=images.device)
    x, y = images.batch(index), images.labels[index]
    gradients = is_differentiable(model, x[:8])
    with evaluating(model), torch.no_grad():
        forward = _seconds(lambda: model(x), x) / len(x)
    if not gradients:
        return Cost(forward, forward, gradients)

    def both() -> None:
        leaf = x.clone().requires_grad_(True)
        gradient_of(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)

    with untouched(model):
        return Cost(forward, _seconds(both, x) / len(x), gradients)


def _seconds(work: Callable[[], object], x: torch.Tensor) -> float:
    """On CUDA by the clock. On processors the time of one thread, shared by all as far as they help: the clock would
    tell how busy others keep the machine just now, and threads that wait for each other take time as well."""
    if x.device.type == "cuda":
        return _quickest(work, time.perf_counter, lambda: torch.cuda.synchronize(x.device))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _quickest(work, time.process_time, lambda: None) / threads**_HELP
    finally:
        torch.set_num_threads(threads)


def _quickest(work: Callable[[], object], now: Callable[[], float], wait: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_TRIES):
        began = now()
        work()
        wait()
        best = min(best, now() - began)
    return max(best, _LEAST)
